/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The run loop: KVM_RUN, its exits, and what must reach a vCPU in between.
 *
 * Requests from other threads: set a bit in `requests`, then immediate_exit,
 * then interrupt the thread with a signal. The loop clears immediate_exit
 * first and looks at `requests` after. Whichever way the two interleave, either
 * the loop sees the bit or KVM_RUN returns at once: no kick is lost, and no
 * signal mask has to be switched at each entry.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	KVM_REQ_KICK = 1, /* leave vcpu_run() */
	KVM_REQ_NMI = 2,
	KVM_REQ_LOOK = 4, /* the PIC's line changed */
};

static void on_kick(int signal)
{
	/* Being interrupted is all that KVM_RUN needs. */
}

int kvm_kick_init(struct err *err)
{
	/* SA_RESTART spares device models on vCPU threads their EINTR; KVM_RUN gives it regardless. */
	struct sigaction action = { .sa_handler = on_kick, .sa_flags = SA_RESTART };

	sigemptyset(&action.sa_mask);
	if (sigaction(KVM_KICK_SIGNAL, &action, NULL) < 0)
		return err_set_errno(err, errno, "the signal that interrupts vCPUs cannot be set up");
	return 0;
}

static void post_request(struct kvm_vcpu *v, uint32_t bit)
{
	int tid;

	atomic_fetch_or(&v->requests, bit);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	tid = atomic_load(&v->tid);
	/* A stale tid does no harm: the handler does nothing. */
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, KVM_KICK_SIGNAL);
}

void kvm_kick(struct vcpu *v)
{
	post_request(kvm_vcpu(v), KVM_REQ_KICK);
}

void kvm_nmi(struct vcpu *v)
{
	post_request(kvm_vcpu(v), KVM_REQ_NMI);
}

void kvm_set_extint(struct engine *engine, bool level)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_vcpu *v = e->vcpus[0];

	if (!atomic_exchange(&e->extint, level) && level && v)
		post_request(v, KVM_REQ_LOOK);
}

/* ---- Making and freeing -------------------------------------------------- */

static void *map_area(int fd, size_t size, off_t offset)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	return p == MAP_FAILED ? NULL : p;
}

static size_t ring_size(struct kvm_engine *e)
{
	return e->caps.ring_entries * sizeof(struct kvm_dirty_gfn);
}

void kvm_vcpu_destroy(struct vcpu *vcpu)
{
	struct kvm_vcpu *v = kvm_vcpu(vcpu);
	struct kvm_engine *e = kvm_vcpu_engine(v);

	if (v->ring)
		kvm_dirty_harvest(e);
	pthread_mutex_lock(&e->dirty_lock);
	if (e->vcpus[vcpu->index] == v)
		e->vcpus[vcpu->index] = NULL;
	pthread_mutex_unlock(&e->dirty_lock);
	kvm_handover_vcpu_free(v);
	if (v->ring)
		munmap(v->ring, ring_size(e));
	if (v->run)
		munmap(v->run, e->run_size);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

static int vcpu_setup(struct kvm_engine *e, struct kvm_vcpu *v, struct err *err)
{
	unsigned index = v->vcpu.index;
	struct cpu_state *reset;
	int r = 0;

	if (!index && e->boot_fd >= 0) {
		v->fd = e->boot_fd;
		e->boot_fd = -1;
	} else {
		v->fd = ioctl(e->vm, KVM_CREATE_VCPU, index);
		if (v->fd < 0)
			return err_set_errno(err, errno, "KVM makes no vCPU %u", index);
		r = kvm_cpuid_apply(e, v->fd, index, err);
		if (r < 0)
			return r;
		kvm_msr_limit(v->fd);
	}
	v->run = map_area(v->fd, e->run_size, 0);
	if (!v->run)
		return err_set_errno(err, errno, "vCPU %u", index);
	if (e->caps.ring_entries) {
		v->ring = map_area(v->fd, ring_size(e), (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * KVM_PAGE);
		if (!v->ring)
			return err_set_errno(err, errno, "vCPU %u: its dirty ring", index);
	}
	reset = malloc(sizeof(*reset));
	if (!reset)
		return err_set(err, ENOMEM, "out of memory");
	cpu_state_reset(reset, index);
	r = kvm_set_state(&v->vcpu, reset, err);
	free(reset);
	return r;
}

struct vcpu *kvm_vcpu_create(struct engine *engine, unsigned index, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_vcpu *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	v->vcpu.engine = engine;
	v->vcpu.index = index;
	v->fd = -1;
	if (vcpu_setup(e, v, err) < 0) {
		kvm_vcpu_destroy(&v->vcpu);
		return NULL;
	}
	e->vcpus[index] = v;
	return &v->vcpu;
}

/* ---- Exits --------------------------------------------------------------- */

static uint64_t load(const void *p, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, p, size);
	return value;
}

/* `count` elements: a REP INS or OUTS of up to a page. */
static void exit_io(struct kvm_vcpu *v)
{
	const struct engine_host *host = &v->vcpu.engine->config.host;
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned size = run->io.size;

	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			host->pio_write(host->opaque, run->io.port, load(data, size), size);
		} else {
			uint32_t value = host->pio_read(host->opaque, run->io.port, size);

			memcpy(data, &value, size);
		}
	}
}

static void mmio_access(const struct engine_host *host, uint64_t gpa, uint8_t *data, unsigned size, bool write)
{
	uint64_t value;

	if (write) {
		host->mmio_write(host->opaque, gpa, load(data, size), size);
		return;
	}
	value = host->mmio_read(host->opaque, gpa, size);
	memcpy(data, &value, size);
}

/* The kernel asks for 1 to 8 bytes, odd lengths among them where an access crosses a page. */
static void exit_mmio(struct kvm_vcpu *v)
{
	const struct engine_host *host = &v->vcpu.engine->config.host;
	struct kvm_run *run = v->run;
	unsigned len = run->mmio.len <= 8 ? run->mmio.len : 8;

	for (unsigned done = 0; done < len;) {
		unsigned size = 8;

		while (size > len - done)
			size /= 2;
		mmio_access(host, run->mmio.phys_addr + done, run->mmio.data + done, size, run->mmio.is_write);
		done += size;
	}
}

static enum vcpu_exit exit_internal_error(struct kvm_vcpu *v, bool *go_on, struct err *err)
{
	enum vcpu_exit exit = VCPU_EXIT_ERROR;
	unsigned long long data[2] = { 0 };

	if (v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
		*go_on = kvm_handover(v, &exit, err);
		return exit;
	}
	*go_on = false;
	for (unsigned i = 0; i < 2 && i < v->run->internal.ndata; i++)
		data[i] = v->run->internal.data[i];
	err_set(err, EIO, "vCPU %u: KVM fails inside (suberror %u, data 0x%llx 0x%llx)", v->vcpu.index,
		v->run->internal.suberror, data[0], data[1]);
	return VCPU_EXIT_ERROR;
}

/* True if the vCPU goes on. */
static bool dispatch(struct kvm_vcpu *v, enum vcpu_exit *exit, struct err *err)
{
	const struct engine_host *host = &v->vcpu.engine->config.host;
	struct kvm_run *run = v->run;
	bool go_on = false;

	v->unfinished = false;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(v);
		v->unfinished = true;
		return true;
	case KVM_EXIT_MMIO:
		exit_mmio(v);
		v->unfinished = true;
		return true;
	case KVM_EXIT_IOAPIC_EOI:
		host->ioapic_eoi(host->opaque, run->eoi.vector);
		return true;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		kvm_msr_exit(v, run->exit_reason == KVM_EXIT_X86_WRMSR);
		v->unfinished = true;
		return true;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR:
		return true;
	case KVM_EXIT_DIRTY_RING_FULL:
		kvm_dirty_harvest(kvm_vcpu_engine(v));
		return true;
	case KVM_EXIT_SHUTDOWN:
		*exit = VCPU_EXIT_SHUTDOWN;
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		*exit = exit_internal_error(v, &go_on, err);
		return go_on;
	case KVM_EXIT_FAIL_ENTRY:
		err_set(err, EIO, "vCPU %u: the processor refuses its state (hardware reason 0x%llx)", v->vcpu.index,
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		err_set(err, EIO, "vCPU %u: KVM stops for a reason unknown to Keel (%u)", v->vcpu.index,
			run->exit_reason);
		break;
	}
	*exit = VCPU_EXIT_ERROR;
	return false;
}

/* ---- The PIC's interrupts ------------------------------------------------ */

/*
 * KVM_INTERRUPT would leave the vector where KVM_GET_VCPU_EVENTS does not show
 * it. An injected interrupt is part of the state.
 */
static int inject_extint(struct kvm_vcpu *v, uint8_t vector)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	int r;

	r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
	if (r < 0)
		return r;
	events.interrupt.injected = 1;
	events.interrupt.nr = vector;
	events.interrupt.soft = 0;
	events.flags = 0; /* leave what may arrive meanwhile: NMI, SIPI */
	r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
	if (!r)
		r = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);
	if (!r && mp.mp_state == KVM_MP_STATE_HALTED) {
		mp.mp_state = KVM_MP_STATE_RUNNABLE;
		r = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
	}
	return r;
}

/* Before each entry of vCPU 0: give it the PIC's interrupt if it can take one now, else ask to be told when it can. */
static int offer_extint(struct kvm_vcpu *v)
{
	const struct engine_host *host = &v->vcpu.engine->config.host;
	struct kvm_engine *e = kvm_vcpu_engine(v);
	int vector;
	int r = 0;

	v->run->request_interrupt_window = 0;
	if (!e->extint)
		return 0;
	if (v->run->ready_for_interrupt_injection && !v->unfinished) {
		vector = host->pic_ack(host->opaque);
		if (vector >= 0) {
			r = inject_extint(v, vector);
			v->run->ready_for_interrupt_injection = 0;
		}
	}
	v->run->request_interrupt_window = e->extint;
	return r;
}

/* ---- The loop ------------------------------------------------------------ */

static bool take_requests(struct kvm_vcpu *v)
{
	uint32_t requests;

	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	if (!atomic_load(&v->requests))
		return false;
	requests = atomic_exchange(&v->requests, 0);
	if (requests & KVM_REQ_NMI)
		kvm_ioctl(v->fd, KVM_NMI, NULL);
	return requests & KVM_REQ_KICK;
}

static void run_error(struct kvm_vcpu *v, int code, struct err *err)
{
	if (code == EFAULT)
		err_set(err, code, "vCPU %u: the host cannot provide guest memory (it or its file is gone)",
			v->vcpu.index);
	else
		err_set_errno(err, code, "vCPU %u does not run", v->vcpu.index);
}

int kvm_settle(struct kvm_vcpu *v, struct err *err)
{
	enum vcpu_exit exit;
	int r = 0;

	/* One access may stop several times: each half of one that crosses a page, the write after the read. */
	while (v->unfinished || v->run->kvm_dirty_regs) {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		if (ioctl(v->fd, KVM_RUN, 0) < 0) {
			r = errno;
			v->unfinished = false;
			if (r == EINTR || r == EAGAIN)
				break;
			run_error(v, r, err);
			return -r;
		}
		if (!dispatch(v, &exit, err))
			return -EIO;
	}
	return 0;
}

static void enter_thread(struct kvm_vcpu *v)
{
	static __thread bool unblocked;

	if (!unblocked) {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, KVM_KICK_SIGNAL);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		unblocked = true;
	}
	atomic_store(&v->tid, (int)syscall(SYS_gettid));
}

static bool run_once(struct kvm_vcpu *v, enum vcpu_exit *exit, struct err *err)
{
	int r;

	if (v->vcpu.index == 0) {
		r = offer_extint(v);
		if (r < 0) {
			err_set_errno(err, -r, "vCPU %u takes no interrupt", v->vcpu.index);
			*exit = VCPU_EXIT_ERROR;
			return false;
		}
	}
	if (ioctl(v->fd, KVM_RUN, 0) < 0) {
		r = errno;
		if (r == EINTR || r == EAGAIN) {
			v->unfinished = false;
			return true;
		}
		run_error(v, r, err);
		*exit = VCPU_EXIT_ERROR;
		return false;
	}
	atomic_store_explicit(&v->exits, v->exits + 1, memory_order_relaxed);
	kvm_handover_idle(v);
	return dispatch(v, exit, err);
}

enum vcpu_exit kvm_run(struct vcpu *vcpu, struct err *err)
{
	struct kvm_vcpu *v = kvm_vcpu(vcpu);
	enum vcpu_exit exit = VCPU_EXIT_KICK;

	enter_thread(v);
	for (;;) {
		if (take_requests(v)) {
			/* Here rather than in kvm_get_state(): another thread there would cost the kernel a grace period. */
			if (kvm_settle(v, err) < 0)
				exit = VCPU_EXIT_ERROR;
			break;
		}
		if (!run_once(v, &exit, err))
			break;
	}
	atomic_store(&v->tid, 0);
	return exit;
}
