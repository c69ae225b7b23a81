/* super/control.c - messages with the gateway process: sent, checked, obeyed.
 *
 * The gateway reads the network and may be taken over: a message that makes no sense is the end of
 * that process, never ours. What it may ask for is bounded by the configuration, which it cannot
 * change: only commands that stand there, SW_CONTROL_INSTANCES at a time.
 */
#include "super/super_priv.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGES_A_TURN 64

/* ---- messages to the gateway ----------------------------------------------------------------- */

void sw_super__control_close(struct sw_super *s)
{
    if (s->gateway.control_fd >= 0) {
        close(s->gateway.control_fd);
        s->gateway.control_fd = -1;
    }
    s->gateway.queue_first = s->gateway.queue_count = 0;
}

void sw_super__control_flush(struct sw_super *s)
{
    struct sw_super_gateway *g = &s->gateway;

    while (g->control_fd >= 0 && g->queue_count > 0) {
        const struct sw_control *m = &g->queue[g->queue_first];

        if (send(g->control_fd, m, sizeof(*m), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            return; /* full: POLLOUT; broken: its end comes as SIGCHLD */
        }
        g->queue_first = (g->queue_first + 1) % SW_SUPER_QUEUE_MAX;
        g->queue_count--;
    }
}

void sw_super__control_send(struct sw_super *s, struct sw_control m)
{
    struct sw_super_gateway *g = &s->gateway;

    if (g->control_fd < 0) {
        return; /* the next gateway process learns it from INSTANCE messages */
    }
    if (g->queue_count == SW_SUPER_QUEUE_MAX) {
        sw_log(SW_LOG_ERROR, "the gateway process does not read its messages: ending it");
        sw_super__control_close(s);
        sw_super__gateway_kill(s);
        return;
    }
    m.version = SW_CONTROL_VERSION;
    g->queue[(g->queue_first + g->queue_count) % SW_SUPER_QUEUE_MAX] = m;
    g->queue_count++;
    sw_super__control_flush(s);
}

struct sw_control sw_super__message_about(const struct sw_super *s,
                                          const struct sw_super_process *p,
                                          enum sw_control_kind kind)
{
    struct sw_control m = {
        .kind = (uint32_t)kind,
        .app = p->app,
        .slot = p->slot,
        .incarnation = p->incarnation,
        .pid = (int32_t)p->pid,
        .started_ms_ago = (uint32_t)((s->now_ns - p->started_ns) / SW_NS_PER_MS),
    };

    memcpy(m.address, p->address, sizeof(m.address));
    return m;
}

/* ---- messages of the gateway ----------------------------------------------------------------- */

static void on_hello(struct sw_super *s)
{
    for (size_t i = 0; i < s->apps.top; i++) {
        struct sw_super_process *p = &s->apps.list[i];

        if ((p->state == SW_PROCESS_EXEC || p->state == SW_PROCESS_RUNS) && !p->stopping) {
            p->known = true;
            p->answer = false;
            sw_super__control_send(s, sw_super__message_about(s, p, SW_CONTROL_INSTANCE));
        }
    }
    sw_super__control_send(s, (struct sw_control){.kind = SW_CONTROL_SYNCED});
}

static void on_start(struct sw_super *s, const struct sw_control *m)
{
    struct sw_super_process *p = NULL;
    int error = ECANCELED; /* we are about to end */

    if (s->phase == SW_PHASE_RUN) {
        p = sw_super__process_start(&s->apps, m->app, m->slot, m->incarnation, &error);
    }
    if (p == NULL) {
        sw_super__control_send(s, (struct sw_control){
                                      .kind = SW_CONTROL_STARTED,
                                      .app = m->app,
                                      .slot = m->slot,
                                      .incarnation = m->incarnation,
                                      .status = error,
                                  });
        return;
    }
    p->answer = true;
    sw_super__guard_told(s, sw_super__guard_add(&s->guard, p->pid));
}

static void on_stop(struct sw_super *s, const struct sw_control *m)
{
    struct sw_super_process *p = sw_super__process_find(&s->apps, m->incarnation);

    if (p != NULL) { /* else it ended by itself; EXITED is on its way */
        sw_super__process_stop(p, s->now_ns + m->grace_ms * SW_NS_PER_MS);
    }
}

static void on_kill(struct sw_super *s, const struct sw_control *m)
{
    struct sw_super_process *p = sw_super__process_find(&s->apps, m->incarnation);

    if (p != NULL) {
        sw_super__process_signal(p, SIGKILL);
    }
}

static void ready_say(struct sw_super *s)
{
    char line[1024];
    struct sw_out out = sw_out_init(line, sizeof(line));
    char text[SW_ADDR_TEXT_MAX];

    sw_out_lit(&out, "ready:");
    for (size_t i = 0; i < s->listen.count; i++) {
        struct sw_slice t = sw_addr_text(&s->listen.bound[i], text);

        sw_out_printf(&out, "%s %s%.*s", i > 0 ? "," : "",
                      sw_slice_starts(t, SW_S("unix:")) ? "" : "http://", SW_SARG(t));
    }
    if (s->listen.admin_fd >= 0) {
        struct sw_slice t = sw_addr_text(&s->listen.bound[SW_LISTEN_MAX], text);

        sw_out_printf(&out, "; admin %s%.*s", sw_slice_starts(t, SW_S("unix:")) ? "" : "http://",
                      SW_SARG(t));
    }
    sw_log(SW_LOG_INFO, "%.*s; %zu worker%s", (int)out.len, line, s->listen.workers,
           s->listen.workers == 1 ? "" : "s");
}

static void on_ready(struct sw_super *s)
{
    struct sw_super_gateway *g = &s->gateway;

    if (!g->ever_ready) {
        g->ever_ready = true;
        ready_say(s);
        if (s->opt->ready != NULL) {
            s->opt->ready(s->opt->arg);
        }
    } else if (g->lost_ns != 0) {
        sw_log(SW_LOG_INFO, "the gateway process is back after %llu ms",
               (unsigned long long)((s->now_ns - g->lost_ns) / SW_NS_PER_MS));
    }
    g->lost_ns = 0;
}

/* The gateway reads the network and may be taken over: NULL, or what is wrong with the message. */
static const char *message_fault(struct sw_super *s, const struct sw_control *m)
{
    if (m->version != SW_CONTROL_VERSION) {
        return "version";
    }
    switch (m->kind) {
    case SW_CONTROL_HELLO:
    case SW_CONTROL_READY:
        return NULL;
    case SW_CONTROL_START:
        if (m->app >= s->config->app_count || s->config->apps[m->app].command == NULL) {
            return "app";
        }
        if (m->slot < 1 || m->slot > SW_CONTROL_INSTANCES) {
            return "slot";
        }
        if (m->incarnation == 0 || sw_super__process_find(&s->apps, m->incarnation) != NULL) {
            return "incarnation";
        }
        return NULL;
    case SW_CONTROL_STOP:
    case SW_CONTROL_KILL:
        if (m->incarnation == 0) {
            return "incarnation";
        }
        return m->grace_ms > SW_SUPER_GRACE_MS_MAX ? "grace" : NULL;
    default:
        return "kind";
    }
}

static void control_message(struct sw_super *s, const struct sw_control *m)
{
    switch (m->kind) {
    case SW_CONTROL_HELLO:
        on_hello(s);
        break;
    case SW_CONTROL_READY:
        on_ready(s);
        break;
    case SW_CONTROL_START:
        on_start(s, m);
        break;
    case SW_CONTROL_STOP:
        on_stop(s, m);
        break;
    case SW_CONTROL_KILL:
        on_kill(s, m);
        break;
    default:
        SW_UNREACHABLE(); /* message_fault refused it */
    }
}

void sw_super__control_read(struct sw_super *s)
{
    for (size_t i = 0; i < MESSAGES_A_TURN && s->gateway.control_fd >= 0; i++) {
        struct sw_control m;
        ssize_t n = recv(s->gateway.control_fd, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC);
        const char *fault;

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) { /* it closed its end: it is ending, or as good as dead */
            sw_super__control_close(s);
            if (s->phase == SW_PHASE_RUN) {
                sw_super__gateway_kill(s);
            }
            return;
        }
        fault = n != (ssize_t)sizeof(m) ? "size" : message_fault(s, &m);
        if (fault != NULL) {
            sw_log(SW_LOG_ERROR, "a message of the gateway process is invalid (%s): ending it",
                   fault);
            sw_super__control_close(s);
            sw_super__gateway_kill(s);
            return;
        }
        control_message(s, &m);
    }
}
