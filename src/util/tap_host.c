/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/tap_host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int control(unsigned long request, struct ifreq *r)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ret;

	if (s < 0)
		return -errno;
	ret = ioctl(s, request, r) ? -errno : 0;
	close(s);
	return ret;
}

static int check_name(const char *name, const struct tap_host *o, struct err *err)
{
	if (!*name || strlen(name) >= IFNAMSIZ || strpbrk(name, "/ %"))
		return err_set(err, EINVAL, "%s: '%.40s' is no name of an interface", o->what, name);
	return 0;
}

/* A macvtap interface has a character device of its own, named after its index. */
static int open_macvtap(const struct tap_host *o, int *fd, unsigned n, struct err *err)
{
	struct ifreq r = { 0 };
	char path[64];
	int ret;

	strcpy(r.ifr_name, o->ifname);
	ret = control(SIOCGIFINDEX, &r);
	if (ret)
		return err_set_errno(err, -ret, "%s: cannot find the interface %s", o->what, o->ifname);
	snprintf(path, sizeof(path), "/dev/tap%d", r.ifr_ifindex);
	for (unsigned i = 0; i < n; i++) {
		struct ifreq set = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (n > 1 ? IFF_MULTI_QUEUE : 0) };

		fd[i] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		strcpy(set.ifr_name, o->ifname);
		if (fd[i] < 0 || ioctl(fd[i], TUNSETIFF, &set))
			return err_set_errno(err, errno, "%s: cannot open %s, the device of %s", o->what, path, o->ifname);
	}
	return 0;
}

static int open_tap(const struct tap_host *o, int *fd, unsigned n, struct err *err)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (n > 1 ? IFF_MULTI_QUEUE : 0) };

	strcpy(r.ifr_name, o->ifname ? o->ifname : "keel%d");
	for (unsigned i = 0; i < n; i++) {
		fd[i] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd[i] < 0)
			return err_set_errno(err, errno, "%s: cannot open /dev/net/tun", o->what);
		/* The second time the name is the one that the kernel chose. */
		if (ioctl(fd[i], TUNSETIFF, &r)) {
			int code = errno;

			return err_set(err, code, "%s: cannot make or use the interface %s: %s%s", o->what, r.ifr_name, strerror(code),
				       code == EPERM ? "; it takes CAP_NET_ADMIN, or an interface made for this user" :
				       code == EINVAL && n > 1 ? "; an existing interface must have been made with multi_queue" : "");
		}
	}
	return 0;
}

static int join_bridge(const char *bridge, const char *name, const struct tap_host *o, struct err *err)
{
	struct ifreq r = { 0 };
	int index, ret;

	strcpy(r.ifr_name, name);
	ret = control(SIOCGIFINDEX, &r);
	index = r.ifr_ifindex;
	strcpy(r.ifr_name, bridge);
	if (!ret && control(SIOCGIFINDEX, &r))
		return err_set(err, ENODEV, "%s: there is no bridge %s", o->what, bridge);
	/* Frames as long as the bridge's others may be. */
	if (!ret && !control(SIOCGIFMTU, &r)) {
		strcpy(r.ifr_name, name);
		ret = control(SIOCSIFMTU, &r);
	}
	strcpy(r.ifr_name, bridge);
	r.ifr_ifindex = index;
	if (!ret)
		ret = control(SIOCBRADDIF, &r);
	return ret ? err_set_errno(err, -ret, "%s: cannot put %s into the bridge %s", o->what, name, bridge) : 0;
}

static int bring_up(const char *name, const struct tap_host *o, struct err *err)
{
	struct ifreq r = { 0 };
	int ret;

	strcpy(r.ifr_name, name);
	ret = control(SIOCGIFFLAGS, &r);
	if (ret || r.ifr_flags & IFF_UP)
		return ret ? err_set_errno(err, -ret, "%s: cannot find the interface %s", o->what, name) : 0;
	r.ifr_flags |= IFF_UP;
	ret = control(SIOCSIFFLAGS, &r);
	return ret ? err_set_errno(err, -ret, "%s: cannot bring up the interface %s", o->what, name) : 0;
}

int tap_host_mtu(const char *name)
{
	struct ifreq r = { 0 };

	if (strlen(name) >= IFNAMSIZ)
		return -ENAMETOOLONG;
	strcpy(r.ifr_name, name);
	return control(SIOCGIFMTU, &r) ? -ENODEV : r.ifr_mtu;
}

static int open_queues(struct tap_host *o, struct err *err)
{
	char path[64];
	struct ifreq r = { 0 };
	int ret;

	if (o->queues > TAP_HOST_QUEUES)
		return err_set(err, EINVAL, "%s: at most %d queues are possible", o->what, TAP_HOST_QUEUES);
	if ((o->ifname && check_name(o->ifname, o, err)) || (o->bridge && check_name(o->bridge, o, err)))
		return -err->code;
	if (o->ifname) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/macvtap", o->ifname);
		if (!access(path, F_OK))
			return open_macvtap(o, o->fd, o->queues, err);
	}
	ret = open_tap(o, o->fd, o->queues, err);
	if (!ret && ioctl(o->fd[0], TUNGETIFF, &r))
		ret = err_set_errno(err, errno, "%s: cannot ask the interface for its name", o->what);
	if (!ret && o->bridge)
		ret = join_bridge(o->bridge, r.ifr_name, o, err);
	/* Whoever may not change interfaces uses one that is up already. */
	if (!ret && (o->bridge || !o->ifname))
		ret = bring_up(r.ifr_name, o, err);
	return ret;
}

int tap_host_open(struct tap_host *o, struct err *err)
{
	int ret;

	if (!o->queues)
		o->queues = 1;
	for (unsigned i = 0; i < TAP_HOST_QUEUES; i++)
		o->fd[i] = -1;
	ret = open_queues(o, err);
	for (unsigned i = 0; ret && i < TAP_HOST_QUEUES; i++) {
		if (o->fd[i] >= 0)
			close(o->fd[i]);
		o->fd[i] = -1;
	}
	return ret;
}
