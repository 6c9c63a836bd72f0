/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest agent, QEMU's: a program in the guest at the other end of a virtio
 * port. What it says is the guest's word, hostile and unpunctual.
 */
#pragma once
#include "daemon/guest.h"

#define AGENT_CHANNEL "org.qemu.guest_agent.0"

/* Seconds to wait for an answer; the values of virDomainQemuAgentCommand. */
enum { AGENT_BLOCK = -2, AGENT_DEFAULT = -1 };
#define AGENT_SHUTDOWN_SECONDS 60

enum {
	AGENT_RAW = 1 << 0,  /* the answer is the whole message, errors too */
	AGENT_TRY = 1 << 1,  /* what the agent refuses is told by NULL; the call's error is set then */
	AGENT_ENDS = 1 << 2, /* no answer comes: the guest's end or reset is it */
};

/*
 * Have the agent run a command for a call, after those that wait already, and go
 * on with `fn` (NULL: the call succeeds) as guest_qmp() does. Takes args.
 * RPC_LATER, or -1 with the error set.
 */
int guest_agent(struct rpc_call *call, struct guest *g, const char *command, json_t *args, unsigned flags, guest_answer fn);
/* A whole message as its user wrote it; one line. */
int guest_agent_text(struct rpc_call *call, struct guest *g, const char *text, int seconds, guest_answer fn);

/* Its port was closed, or the guest has ended. */
void guest_agent_gone(struct guest *g);
/* The guest was reset, or has powered off. */
void guest_agent_guest_ended(struct guest *g);
void guest_agent_free(struct guest *g);

/* virDomainSetVcpusFlags and its like with VIR_DOMAIN_VCPU_GUEST (domain_agent.c). */
int agent_get_vcpus(struct rpc_call *call, struct guest *g);
int agent_set_vcpus(struct rpc_call *call, struct guest *g, unsigned n);
/* virDomainGetGuestInfo (guest_info.c). */
int guest_info(struct rpc_call *call, struct guest *g);
