/* io/sim.c - the sim engine: an in-memory network and a virtual clock (see sim.h).
 *
 * Room       io/. Tests only. One thread; no system call.
 * Flow       sw_sim_step picks a loop that has work and lets it turn; when none has, the clock
 * jumps to the next event of the heap, or to the next timer of a loop.
 *
 * A connection is two ends. Each end holds what was sent to it in a ring:
 *
 *      read          arrived             written
 *        |  may be read  |   under way      |        written - read <= cap
 *
 * A send copies bytes into the peer's ring and an EV_DATA event moves `arrived` later. Everything
 * that follows on the same way (FIN, RST) is due no earlier, and events of one due time keep their
 * order.
 *
 * An end outlives its stream (bytes are still under way), a socket its listener (a backlog waits
 * while the gateway restarts). A connection is given back when nobody points at it: two ends and
 * its events.
 */
#include "io/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <sys/uio.h>

#include "io/io_priv.h"

#define SIM_MAGIC        0x73696d21u
#define SIM_FD_FIRST     0x40000000 /* no kernel hands out such numbers */
#define SIM_LOOPS_MAX    64u
#define SIM_SOCKETS_MAX  512u
#define SIM_START_NS     (5 * SW_NS_PER_S)
#define SIM_PIPE_BYTES   (64u * 1024u)
#define SIM_HANG_NS      (130 * SW_NS_PER_S) /* as Linux gives up on SYN */
#define SIM_TURN_NS_MAX  5000u               /* a turn takes time, so that no loop spins for ever */
#define SIM_DELAY_MIN_NS 1000u

enum ev_kind {
    EV_SYN,      /* reaches the listening socket */
    EV_OUTCOME,  /* of connect: err */
    EV_DATA,     /* n bytes arrived */
    EV_FIN,      /* the peer sends no more */
    EV_RST,      /* the peer is gone */
    EV_WRITABLE, /* there is room in the ring again */
    EV_SENT,     /* a lazy send is carried out */
    EV_FATE,     /* both ends get a reset */
    EV_MUTE,     /* nothing gets through any more */
    EV_KIND_COUNT,
};

static const char *const ev_names[EV_KIND_COUNT] = {
    [EV_SYN] = "syn",   [EV_OUTCOME] = "outcome", [EV_DATA] = "data",
    [EV_FIN] = "fin",   [EV_RST] = "rst",         [EV_WRITABLE] = "writable",
    [EV_SENT] = "sent", [EV_FATE] = "fate",       [EV_MUTE] = "mute",
};

struct sim_conn;
struct sim_loop;
struct sim_socket;

struct event {
    uint64_t due_ns, seq;
    struct sim_conn *conn;
    uint32_t n; /* bytes, or an sw_err */
    uint8_t kind, side;
};

/* One side of a connection. */
struct sim_end {
    struct sw_stream *s;    /* NULL: not accepted yet, or closed */
    struct sim_loop *loop;  /* valid while s is */
    struct sw_link pending; /* in loop->pending: something to tell */
    struct sw_link starved; /* in loop->starved: waits for a buffer to read into */
    char *ring;
    uint32_t cap;
    uint64_t read, arrived, written;
    uint64_t clear_ns;   /* the way to this end: nothing is due earlier that was sent later */
    bool connecting : 1; /* the owner waits for the outcome */
    bool outcome : 1;    /* it is there: err */
    bool closed : 1;     /* the process closed it */
    bool fin_sent : 1;   /* by this end */
    bool rst_sent : 1;   /* by this end */
    bool fin : 1;        /* arrived here */
    bool rst : 1;
    bool rst_told : 1;
    bool blocked : 1;  /* the last write did not take all */
    bool writable : 1; /* to be told */
    bool eof_told : 1;
    bool waking : 1; /* EV_WRITABLE is under way */
    bool carry : 1;  /* a lazy send is to be carried out now */
    uint16_t err;    /* of the outcome */
};

struct sim_conn {
    struct sim_end end[2]; /* 0: who connected */
    uint64_t id;
    uint32_t refs; /* events, open ends, a backlog */
    bool mute, fated;
    struct sw_addr from, to;
    struct sim_socket *socket; /* in its backlog */
    struct sw_link backlog;    /* or in sim->spare */
    struct sw_link live;       /* in sim->live */
};

struct sim_socket {
    int fd;
    bool open;
    struct sw_addr addr;
    uint32_t backlog_max, backlog_count;
    struct sw_link backlog;
    struct sw_listener *l;
    struct sim_loop *loop; /* valid while l is */
    struct sw_link pending;
};

struct sim_loop {
    struct sw_sim *sim;
    struct sw_loop *loop;
    uint32_t index;
    uint16_t port_next;
    struct sw_rng rng;      /* sw_loop_random */
    struct sw_link pending; /* ends */
    struct sw_link sockets; /* with a backlog and an accepting listener */
    struct sw_link closing; /* streams, by `ready`: closed in a later turn */
    struct sw_link starved; /* ends without a buffer to read into */
};

struct sw_sim {
    uint32_t magic;
    uint64_t now_ns, seq, hash, conn_ids;
    int64_t wall_ns; /* of the wall clock, on top of the virtual one */
    struct sw_sim_faults faults;
    struct sw_rng net, world, order;
    struct event *heap;
    size_t heap_count, heap_cap;
    struct sim_loop *loops[SIM_LOOPS_MAX];
    uint32_t loop_count, loops_made;
    struct sim_socket sockets[SIM_SOCKETS_MAX];
    int fd_next;
    struct sw_link spare; /* connections to be used again */
    struct sw_link live;
    sw_sim_trace_fn *trace;
    void *trace_arg;
    struct sw_sim_stats stats;
};

static void sim_check(const struct sw_sim *sim)
{
    SW_ASSERT(sim != NULL);
    SW_ASSERT(sim->magic == SIM_MAGIC);
}

/* ---- hash and trace -------------------------------------------------------------------------- */

void sw_sim_note(struct sw_sim *sim, uint64_t value)
{
    sim_check(sim);
    sim->hash = (sim->hash ^ value) * 0x9e3779b97f4a7c15u;
    sim->hash ^= sim->hash >> 29;
}

static void note_bytes(struct sw_sim *sim, const char *ptr, size_t len)
{
    sw_sim_note(sim, sw_slice_hash(sw_slice_of(ptr, len), 0));
}

SW_PRINTF(2, 3) static void say(struct sw_sim *sim, const char *fmt, ...)
{
    char line[256];
    int n;
    va_list ap;

    if (SW_LIKELY(sim->trace == NULL)) {
        return;
    }
    n = snprintf(line, sizeof(line), "%12.6f ",
                 (double)(sim->now_ns - SIM_START_NS) / (double)SW_NS_PER_S);
    SW_ASSERT(n > 0);
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    sim->trace(sim->trace_arg, line);
}

static bool roll(struct sw_sim *sim, uint32_t ppm)
{
    return ppm != 0 && sw_rng_below(&sim->net, 1000000) < ppm;
}

static uint64_t between(struct sw_rng *rng, uint64_t min, uint64_t max)
{
    return max <= min ? min : min + sw_rng_below(rng, max - min + 1);
}

/* ---- connections ----------------------------------------------------------------------------- */

static struct sim_end *end_peer(struct sim_conn *c, const struct sim_end *e)
{
    return e == &c->end[0] ? &c->end[1] : &c->end[0];
}

static uint8_t end_side(const struct sim_conn *c, const struct sim_end *e)
{
    return e == &c->end[0] ? 0 : 1;
}

static struct sim_conn *end_conn(const struct sw_stream *s)
{
    struct sim_conn *c = s->eng.sim.peer;

    SW_ASSERT(c != NULL);
    return c;
}

static struct sim_end *end_of(const struct sw_stream *s)
{
    SW_ASSERT(s->eng.sim.word[0] < 2);
    return &end_conn(s)->end[s->eng.sim.word[0]];
}

static void end_bind(struct sim_conn *c, uint8_t side, struct sw_stream *s, struct sim_loop *sl)
{
    c->end[side].s = s;
    c->end[side].loop = sl;
    s->eng.sim.peer = c;
    s->eng.sim.word[0] = side;
    c->refs++;
}

static void end_pend(struct sim_end *e)
{
    if (e->s != NULL && !sw_link_linked(&e->pending)) {
        sw_list_push_back(&e->loop->pending, &e->pending);
    }
}

static uint32_t ring_used(const struct sim_end *e)
{
    return (uint32_t)(e->written - e->read);
}

static struct sim_conn *conn_new(struct sw_sim *sim)
{
    struct sw_link *l = sw_list_pop_front(&sim->spare);
    struct sim_conn *c;

    if (l != NULL) {
        c = SW_CONTAINER(l, struct sim_conn, backlog);
    } else {
        c = calloc(1, sizeof(*c));
        SW_ASSERT(c != NULL);
    }
    for (unsigned i = 0; i < 2; i++) {
        char *ring = c->end[i].ring;

        if (ring == NULL) {
            ring = malloc(SIM_PIPE_BYTES);
            SW_ASSERT(ring != NULL);
        }
        c->end[i] = (struct sim_end){.ring = ring, .cap = SIM_PIPE_BYTES};
        if (sim->faults.pipe_bytes_max != 0) {
            c->end[i].cap = (uint32_t)between(&sim->net, sim->faults.pipe_bytes_min,
                                              sim->faults.pipe_bytes_max);
        }
        SW_ASSERT(c->end[i].cap > 0);
        SW_ASSERT(c->end[i].cap <= SIM_PIPE_BYTES);
    }
    c->id = ++sim->conn_ids;
    c->refs = 0;
    c->mute = false;
    c->fated = false;
    c->socket = NULL;
    sim->stats.connections++;
    sw_list_push_back(&sim->live, &c->live);
    return c;
}

static void conn_unref(struct sw_sim *sim, struct sim_conn *c)
{
    SW_ASSERT(c->refs > 0);
    c->refs--;
    if (c->refs > 0) {
        return;
    }
    SW_ASSERT(c->end[0].s == NULL);
    SW_ASSERT(c->end[1].s == NULL);
    SW_ASSERT(!sw_link_linked(&c->end[0].pending));
    SW_ASSERT(!sw_link_linked(&c->end[1].pending));
    SW_ASSERT(!sw_link_linked(&c->end[0].starved));
    SW_ASSERT(!sw_link_linked(&c->end[1].starved));
    SW_ASSERT(sim->stats.connections > 0);
    sim->stats.connections--;
    sw_link_remove(&c->live);
    sw_list_push_back(&sim->spare, &c->backlog);
}

/* ---- the heap of events ---------------------------------------------------------------------- */

static bool event_before(const struct event *a, const struct event *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->seq < b->seq;
}

static void event_add(struct sw_sim *sim, enum ev_kind kind, struct sim_conn *c, uint8_t side,
                      uint32_t n, uint64_t due_ns)
{
    size_t at = sim->heap_count++;

    if (sim->heap_count > sim->heap_cap) {
        sim->heap_cap = sim->heap_cap == 0 ? 256 : sim->heap_cap * 2;
        sim->heap = realloc(sim->heap, sim->heap_cap * sizeof(*sim->heap));
        SW_ASSERT(sim->heap != NULL);
    }
    c->refs++;
    sim->heap[at] = (struct event){due_ns, sim->seq++, c, n, (uint8_t)kind, side};
    while (at > 0 && event_before(&sim->heap[at], &sim->heap[(at - 1) / 2])) {
        struct event e = sim->heap[at];

        sim->heap[at] = sim->heap[(at - 1) / 2];
        sim->heap[(at - 1) / 2] = e;
        at = (at - 1) / 2;
    }
}

static struct event event_pop(struct sw_sim *sim)
{
    struct event first = sim->heap[0], last;
    size_t at = 0;

    SW_ASSERT(sim->heap_count > 0);
    last = sim->heap[--sim->heap_count];
    for (;;) {
        size_t child = at * 2 + 1;

        if (child >= sim->heap_count) {
            break;
        }
        if (child + 1 < sim->heap_count && event_before(&sim->heap[child + 1], &sim->heap[child])) {
            child++;
        }
        if (!event_before(&sim->heap[child], &last)) {
            break;
        }
        sim->heap[at] = sim->heap[child];
        at = child;
    }
    if (sim->heap_count > 0) {
        sim->heap[at] = last;
    }
    return first;
}

/* ---- the way --------------------------------------------------------------------------------- */

static uint64_t travel_ns(struct sw_sim *sim)
{
    uint64_t ns = between(&sim->net, SW_MAX(sim->faults.delay_min_ns, SIM_DELAY_MIN_NS),
                          sim->faults.delay_max_ns);

    if (roll(sim, sim->faults.spike_ppm)) {
        ns += between(&sim->net, 0, sim->faults.spike_ns);
    }
    return ns;
}

/* Sends something to `to`: behind all that is on its way there. */
static void way_send(struct sw_sim *sim, struct sim_conn *c, struct sim_end *to, enum ev_kind kind,
                     uint32_t n)
{
    uint64_t due_ns;

    if (c->mute) {
        return;
    }
    due_ns = sim->now_ns + travel_ns(sim);
    to->clear_ns = SW_MAX(to->clear_ns, due_ns);
    event_add(sim, kind, c, end_side(c, to), n, to->clear_ns);
}

static void end_send_rst(struct sw_sim *sim, struct sim_conn *c, struct sim_end *from)
{
    if (!from->rst_sent) {
        from->rst_sent = true;
        way_send(sim, c, end_peer(c, from), EV_RST, 0);
    }
}

static void end_rst_arrived(struct sw_sim *sim, struct sim_end *e)
{
    if (e->rst) {
        return;
    }
    sim->stats.resets++;
    e->rst = true;
    e->blocked = false;
    if (roll(sim, sim->faults.drop_unread_ppm)) {
        e->read = e->arrived;
    }
    end_pend(e);
}

/* Gives the sender room, some time after the receiver read. */
static void end_window(struct sw_sim *sim, struct sim_conn *c, struct sim_end *reader)
{
    struct sim_end *writer = end_peer(c, reader);

    if (writer->s != NULL && writer->blocked && !writer->waking && !c->mute &&
        ring_used(reader) < reader->cap) {
        writer->waking = true;
        event_add(sim, EV_WRITABLE, c, end_side(c, writer), 0, sim->now_ns + travel_ns(sim));
    }
}

/* Copies what `s` has queued to its peer, at most max bytes; returns how many. */
static size_t end_write(struct sw_sim *sim, struct sw_stream *s, size_t max)
{
    struct sim_conn *c = end_conn(s);
    struct sim_end *e = end_of(s), *to = end_peer(c, e);
    struct iovec iov[IO_PIECES_A_SEND];
    size_t bytes, count, done = 0;

    SW_ASSERT(!e->fin_sent);
    count = io__gather(s, iov, SW_COUNTOF(iov), &bytes);
    if (to->closed) { /* discarded, and answered by a reset */
        bytes = SW_MIN(bytes, max);
        if (!c->mute) {
            end_send_rst(sim, c, to);
        }
        return bytes;
    }
    max = SW_MIN(max, to->cap - ring_used(to));
    max = SW_MIN(max, bytes);
    for (size_t i = 0; i < count && done < max; i++) {
        size_t take = SW_MIN(iov[i].iov_len, max - done);
        const char *from = iov[i].iov_base;
        while (take > 0) {
            size_t at = (size_t)(to->written % to->cap), run = SW_MIN(take, to->cap - at);

            memcpy(to->ring + at, from, run);
            to->written += run;
            from += run;
            take -= run;
            done += run;
        }
    }
    SW_ASSERT(done == max);
    for (size_t left = done; left > 0;) { /* in one segment, or in several */
        size_t n = left;

        if (n > 1 && roll(sim, sim->faults.short_write_ppm / 2)) {
            n = 1 + (size_t)sw_rng_below(&sim->net, n - 1);
        }
        way_send(sim, c, to, EV_DATA, (uint32_t)n);
        sim->stats.segments++;
        left -= n;
    }
    sim->stats.bytes += done;
    if (done > 0 && roll(sim, sim->faults.reset_byte_ppm)) {
        event_add(sim, EV_FATE, c, 0, 0, sim->now_ns + travel_ns(sim));
    }
    return done;
}

/* ---- what an engine does --------------------------------------------------------------------- */

static struct sim_loop *loop_sim(const struct sw_loop *loop)
{
    return loop->engine_data;
}

static enum sw_err eng_init(struct sw_loop *loop)
{
    struct sim_loop *sl = loop_sim(loop);

    sl->loop = loop;
    return SW_OK;
}

static void eng_fini(struct sw_loop *loop)
{
    struct sim_loop *sl = loop_sim(loop);
    struct sw_sim *sim = sl->sim;
    struct sw_link *l;

    while ((l = sw_list_pop_front(&sl->closing)) != NULL) {
        io__closed(SW_CONTAINER(l, struct sw_stream, ready));
    }
    for (uint32_t i = 0; i < sim->loop_count; i++) {
        if (sim->loops[i] == sl) {
            sim->loops[i] = sim->loops[--sim->loop_count];
            break;
        }
    }
    SW_ASSERT(sw_list_empty(&sl->pending));
    SW_ASSERT(sw_list_empty(&sl->sockets));
    SW_ASSERT(sw_list_empty(&sl->starved));
    free(sl);
}

/* Time passes in sw_sim_step only. */
static void eng_wait(struct sw_loop *loop, uint64_t deadline_ns)
{
    struct sw_sim *sim = loop_sim(loop)->sim;

    SW_ASSERT(deadline_ns <= sim->now_ns); /* sw_loop_run is not for sim: use sw_sim_run */
}

static void eng_wake(struct sw_loop *loop)
{
    (void)loop; /* sw_sim_step looks at the posts itself */
}

static uint64_t eng_clock(struct sw_loop *loop, int64_t *ret_unix_ns)
{
    const struct sw_sim *sim = loop_sim(loop)->sim;

    if (ret_unix_ns != NULL) {
        *ret_unix_ns = SW_SIM_UNIX_S * (int64_t)SW_NS_PER_S +
                       (int64_t)(sim->now_ns - SIM_START_NS) + sim->wall_ns;
    }
    return sim->now_ns;
}

static uint64_t eng_random(struct sw_loop *loop)
{
    return sw_rng_u64(&loop_sim(loop)->rng);
}

static void addr_of_loop(struct sim_loop *sl, struct sw_addr *ret_addr)
{
    memset(ret_addr, 0, sizeof(*ret_addr));
    ret_addr->in.sin_family = AF_INET;
    ret_addr->in.sin_addr.s_addr = htonl(0x0a000001u + (sl->index << 8)); /* 10.0.<loop>.1 */
    ret_addr->in.sin_port = htons(sl->port_next);
    ret_addr->len = sizeof(ret_addr->in);
    sl->port_next = sl->port_next == 65535 ? 20000 : (uint16_t)(sl->port_next + 1);
}

static enum sw_err eng_connect(struct sw_stream *s, const struct sw_addr *addr)
{
    struct sim_loop *sl = loop_sim(s->loop);
    struct sw_sim *sim = sl->sim;
    struct sim_conn *c;

    if (roll(sim, sim->faults.no_files_ppm)) {
        sim->stats.no_files++;
        return SW_E_NO_FILES;
    }
    c = conn_new(sim);
    c->to = *addr;
    addr_of_loop(sl, &c->from);
    end_bind(c, 0, s, sl);
    c->end[0].connecting = true;
    io__small_addr_set(&s->local, &c->from);
    sim->stats.connects++;
    say(sim, "loop %u connects %" PRIu64 " to port %u", sl->index, c->id, sw_addr_port(addr));
    if (roll(sim, sim->faults.hang_ppm)) {
        sim->stats.hangs++;
        c->mute = true;
        event_add(sim, EV_OUTCOME, c, 0, SW_E_TIMEOUT, sim->now_ns + SIM_HANG_NS);
        return SW_OK;
    }
    way_send(sim, c, &c->end[1], EV_SYN, 0);
    return SW_OK;
}

static void eng_read(struct sw_stream *s)
{
    struct sim_end *e = end_of(s);

    if (s->state != ST_CONNECTING && io__wants_bytes(s) &&
        (e->arrived > e->read || e->fin || e->rst)) {
        end_pend(e);
    }
}

static void eng_send(struct sw_sim *sim, struct sw_stream *s)
{
    struct sim_end *e = end_of(s);
    size_t max = SIZE_MAX, n;

    if (roll(sim, sim->faults.short_write_ppm)) {
        sim->stats.short_writes++;
        max = roll(sim, sim->faults.one_byte_ppm) ? 1
                                                  : 1 + (size_t)sw_rng_below(&sim->net, s->queued);
    }
    n = end_write(sim, s, max);
    say(sim, "loop %u conn %" PRIu64 ".%u sends %zu of %zu", e->loop->index, end_conn(s)->id,
        end_side(end_conn(s), e), n, s->queued);
    if (n < s->queued) { /* the kernel will say when it takes more */
        e->blocked = true;
        sim->stats.blocked++;
        end_window(sim, end_conn(s), end_peer(end_conn(s), e));
    }
    if (n > 0) {
        io__sent(s, n); /* last: the owner may close s */
    }
}

static void eng_flush(struct sw_stream *s)
{
    struct sim_loop *sl = loop_sim(s->loop);
    struct sw_sim *sim = sl->sim;
    struct sim_end *e;

    if (s->state == ST_CLOSING || s->state == ST_DEAD || s->state == ST_CONNECTING) {
        return;
    }
    e = end_of(s);
    if (!io__wants_send(s) || s->sending || e->blocked) {
        return;
    }
    if (e->rst) { /* EPIPE: the reason is told by reading, or soon */
        end_pend(e);
        io__send_failed(s, SW_E_RESET);
        return;
    }
    if (roll(sim, sim->faults.lazy_ppm)) {
        sim->stats.lazy++;
        s->sending = true;
        event_add(sim, EV_SENT, end_conn(s), end_side(end_conn(s), e), 0,
                  sim->now_ns + between(&sim->net, 0, 50 * SW_NS_PER_US));
        return;
    }
    eng_send(sim, s);
}

static void eng_shutdown(struct sw_stream *s)
{
    struct sim_end *e = end_of(s);
    struct sim_conn *c = end_conn(s);

    SW_ASSERT(!e->fin_sent);
    e->fin_sent = true;
    way_send(loop_sim(s->loop)->sim, c, end_peer(c, e), EV_FIN, 0);
}

static void eng_close(struct sw_stream *s)
{
    struct sim_loop *sl = loop_sim(s->loop);
    struct sw_sim *sim = sl->sim;
    struct sim_conn *c = end_conn(s);
    struct sim_end *e = end_of(s);
    bool later = s->sending || roll(sim, sim->faults.lazy_ppm);

    SW_ASSERT(e->s == s);
    if (s->sending && !e->rst && !e->fin_sent) { /* in flight: none of it, a part, or all */
        (void)end_write(sim, s, (size_t)sw_rng_below(&sim->net, s->queued + 1));
    }
    say(sim, "loop %u conn %" PRIu64 ".%u closes, %" PRIu64 " bytes unread", sl->index, c->id,
        end_side(c, e), e->arrived - e->read);
    sw_sim_note(sim, c->id * 2 + end_side(c, e));
    sw_link_remove(&e->pending);
    sw_link_remove(&e->starved);
    e->s = NULL;
    e->closed = true;
    e->connecting = false;
    if (e->arrived != e->read) { /* RFC 1122, 4.2.2.13: unread data makes it a reset */
        end_send_rst(sim, c, e);
    } else if (!e->fin_sent && !e->rst) {
        e->fin_sent = true;
        way_send(sim, c, end_peer(c, e), EV_FIN, 0);
    }
    e->read = e->arrived;
    s->eng.sim.peer = NULL;
    conn_unref(sim, c);
    if (later && !s->loop->freeing) {
        SW_ASSERT(!sw_link_linked(&s->ready));
        sw_list_push_back(&sl->closing, &s->ready);
        return;
    }
    io__closed(s);
}

static void eng_addresses(struct sw_stream *s, bool local, struct sw_addr *ret_addr)
{
    struct sim_conn *c = end_conn(s);

    *ret_addr = local == (s->eng.sim.word[0] == 0) ? c->from : c->to;
}

/* ---- listeners ------------------------------------------------------------------------------- */

static struct sim_socket *socket_by_fd(struct sw_sim *sim, int fd)
{
    for (size_t i = 0; i < SIM_SOCKETS_MAX; i++) {
        if (sim->sockets[i].open && sim->sockets[i].fd == fd) {
            return &sim->sockets[i];
        }
    }
    return NULL;
}

static void socket_pend(struct sim_socket *k)
{
    if (k->l != NULL && k->l->accepting && k->backlog_count > 0 && !sw_link_linked(&k->pending)) {
        sw_list_push_back(&k->loop->sockets, &k->pending);
    }
}

static struct sim_conn *socket_pop(struct sim_socket *k)
{
    struct sw_link *l = sw_list_pop_front(&k->backlog);
    struct sim_conn *c;

    if (l == NULL) {
        return NULL;
    }
    c = SW_CONTAINER(l, struct sim_conn, backlog);
    SW_ASSERT(k->backlog_count > 0);
    k->backlog_count--;
    c->socket = NULL;
    return c;
}

static void socket_drop(struct sw_sim *sim, struct sim_conn *c)
{
    c->end[1].closed = true;
    end_send_rst(sim, c, &c->end[1]);
    conn_unref(sim, c);
}

static enum sw_err eng_listen(struct sw_listener *l)
{
    struct sim_loop *sl = loop_sim(l->loop);
    struct sim_socket *k = socket_by_fd(sl->sim, l->fd);

    SW_ASSERT(k != NULL);    /* an fd of sw_sim_listen of this sim */
    SW_ASSERT(k->l == NULL); /* one loop accepts on it */
    k->l = l;
    k->loop = sl;
    l->engine_data = k;
    return SW_OK;
}

static void eng_accept(struct sw_listener *l, bool on)
{
    struct sim_socket *k = l->engine_data;

    if (on) {
        socket_pend(k);
    } else {
        sw_link_remove(&k->pending);
    }
}

static void eng_unlisten(struct sw_listener *l)
{
    struct sim_socket *k = l->engine_data;

    sw_link_remove(&k->pending);
    k->l = NULL;
    k->loop = NULL;
    io__listener_closed(l);
}

static void socket_run(struct sim_loop *sl, struct sim_socket *k)
{
    struct sw_sim *sim = sl->sim;

    for (unsigned i = 0; i < IO_ACCEPTS_A_TURN; i++) {
        struct sw_listener *l = k->l;
        struct sim_conn *c;
        struct sw_stream *s;

        if (l == NULL || !l->accepting || k->backlog_count == 0 || !io__accept_room(l)) {
            return;
        }
        if (roll(sim, sim->faults.no_files_ppm)) {
            sim->stats.no_files++;
            io__accept_failed(l);
            return;
        }
        s = io__accept_slot(l);
        c = socket_pop(k);
        SW_ASSERT(c != NULL);
        if (s == NULL) {
            socket_drop(sim, c);
            continue;
        }
        end_bind(c, 1, s, sl);
        io__small_addr_set(&s->peer, &c->from);
        io__small_addr_set(&s->local, &c->to);
        sim->stats.accepts++;
        say(sim, "loop %u accepts %" PRIu64, sl->index, c->id);
        sw_sim_note(sim, c->id);
        if (c->end[1].rst) {
            end_pend(&c->end[1]);
        }
        conn_unref(sim, c); /* the backlog's */
        io__accepted(l, s);
    }
    socket_pend(k);
}

static bool addr_same(const struct sw_addr *a, const struct sw_addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family) {
        return false;
    }
    switch (a->sa.sa_family) {
    case AF_INET:
        return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
    default:
        return a->len == b->len && memcmp(&a->un, &b->un, a->len) == 0;
    }
}

static void syn_arrived(struct sw_sim *sim, struct sim_conn *c)
{
    struct sim_socket *k = NULL;
    uint64_t same = 0;

    for (size_t i = 0; i < SIM_SOCKETS_MAX; i++) {
        if (sim->sockets[i].open && addr_same(&sim->sockets[i].addr, &c->to)) {
            same++;
            if (k == NULL || sw_rng_below(&sim->net, same) == 0) { /* SO_REUSEPORT: any of them */
                k = &sim->sockets[i];
            }
        }
    }
    if (k == NULL || k->backlog_count >= k->backlog_max || roll(sim, sim->faults.refuse_ppm)) {
        sim->stats.refused++;
        c->end[1].closed = true;
        c->end[1].rst_sent = true;
        way_send(sim, c, &c->end[0], EV_OUTCOME, SW_E_REFUSED);
        return;
    }
    if (roll(sim, sim->faults.reset_ppm) && sim->faults.reset_within_ns != 0) {
        c->fated = true;
        event_add(sim, EV_FATE, c, 0, 0,
                  sim->now_ns + sw_rng_below(&sim->net, sim->faults.reset_within_ns));
    }
    if (roll(sim, sim->faults.mute_ppm) && sim->faults.reset_within_ns != 0) {
        c->fated = true;
        event_add(sim, EV_MUTE, c, 0, 0,
                  sim->now_ns + sw_rng_below(&sim->net, sim->faults.reset_within_ns));
    }
    c->socket = k;
    c->refs++;
    k->backlog_count++;
    sw_list_push_back(&k->backlog, &c->backlog);
    socket_pend(k);
    way_send(sim, c, &c->end[0], EV_OUTCOME, SW_OK);
}

/* ---- a loop's turn --------------------------------------------------------------------------- */

static bool end_may_read(const struct sim_end *e)
{
    return e->arrived > e->read && !sw_link_linked(&e->starved);
}

/* Reads once; without a buffer it waits among the starved. */
static void end_read(struct sim_loop *sl, struct sim_end *e)
{
    struct sw_sim *sim = sl->sim;
    struct sw_stream *s = e->s;
    struct sim_conn *c = end_conn(s);
    size_t want = (size_t)(e->arrived - e->read), max = SW_BUF_BYTES, got = 0;
    struct sw_buf *buf;

    SW_ASSERT(want > 0);
    buf = sw_buf_get(sl->loop, SW_BUF_BYTES);
    if (buf == NULL) {
        sim->stats.starved++;
        sw_list_push_back(&sl->starved, &e->starved);
        return;
    }
    if (roll(sim, sim->faults.short_read_ppm)) {
        sim->stats.short_reads++;
        max = roll(sim, sim->faults.one_byte_ppm) ? 1 : 1 + (size_t)sw_rng_below(&sim->net, want);
    }
    want = SW_MIN(SW_MIN(want, max), SW_BUF_BYTES);
    while (got < want) {
        size_t at = (size_t)(e->read % e->cap), run = SW_MIN(want - got, e->cap - at);

        memcpy(buf->data + got, e->ring + at, run);
        e->read += run;
        got += run;
    }
    say(sim, "loop %u conn %" PRIu64 ".%u reads %zu", sl->index, c->id, end_side(c, e), got);
    note_bytes(sim, buf->data, got);
    end_window(sim, c, e);
    io__received(s, buf, 0, got); /* the owner may close s: e->s is NULL then */
    sw_buf_unref(buf);
}

/* The turn of the "kernel" that eng_flush handed the queue to has come. */
static void end_carry_out(struct sw_sim *sim, struct sim_end *e)
{
    struct sw_stream *s = e->s;

    SW_ASSERT(s->sending);
    s->sending = false;
    if (s->broken || s->err != SW_OK) {
        io__sent(s, 0); /* drops what was held for us */
    } else if (e->rst) {
        end_pend(e);
        io__send_failed(s, SW_E_RESET);
    } else if (io__wants_send(s)) {
        eng_send(sim, s);
    }
}

/* Tells the owner of an end what there is to tell. */
static void end_run(struct sim_loop *sl, struct sim_end *e)
{
    struct sw_sim *sim = sl->sim;
    struct sw_stream *s = e->s;

    SW_ASSERT(s != NULL);
    SW_ASSERT(!s->parked);
    if (e->connecting) {
        if (!e->outcome) {
            return;
        }
        e->connecting = false;
        io__connected(s, (enum sw_err)e->err);
        if (e->s != s || e->err != SW_OK) {
            return;
        }
    }
    if (e->writable) {
        e->writable = false;
        io__dirty(s);
    }
    if (e->carry) {
        e->carry = false;
        end_carry_out(sim, e);
        if (e->s != s) {
            return;
        }
    }
    for (unsigned i = 0; i < IO_READS_A_TURN && end_may_read(e) && io__wants_bytes(s); i++) {
        end_read(sl, e);
        if (e->s != s) {
            return;
        }
    }
    if (end_may_read(e) && s->state == ST_OPEN && !s->reading && !s->broken && !s->eof &&
        roll(sim, sim->faults.overrun_ppm)) {
        sim->stats.overruns++;
        end_read(sl, e);
        if (e->s != s) {
            return;
        }
    }
    if (e->arrived > e->read && io__wants_bytes(s)) {
        if (!sw_link_linked(&e->starved)) {
            end_pend(e); /* more in the next turn */
        }
        return;
    }
    if (e->rst && !e->rst_told) {
        e->rst_told = true;
        io__broken(s, SW_E_RESET);
        return;
    }
    if (e->fin && !e->eof_told && e->arrived == e->read && io__wants_bytes(s)) {
        e->eof_told = true;
        io__eof(s);
    }
}

static void list_move(struct sw_link *from, struct sw_link *to)
{
    struct sw_link *l;

    while ((l = sw_list_pop_front(from)) != NULL) {
        sw_list_push_back(to, l);
    }
}

/* Takes any element of a list: a random one of the first eight. */
static struct sw_link *list_pop_any(struct sw_sim *sim, struct sw_link *head)
{
    struct sw_link *l = head->next;

    if (l == head) {
        return NULL;
    }
    for (uint64_t skip = sw_rng_below(&sim->order, 8); skip > 0 && l->next != head; skip--) {
        l = l->next;
    }
    sw_link_remove(l);
    return l;
}

static void eng_dispatch(struct sw_loop *loop)
{
    struct sim_loop *sl = loop_sim(loop);
    struct sw_sim *sim = sl->sim;
    struct sw_link batch, *l;

    sw_list_init(&batch);
    if (buf__small_left(loop)) {
        while ((l = sw_list_pop_front(&sl->starved)) != NULL) {
            end_pend(SW_CONTAINER(l, struct sim_end, starved));
        }
    }
    list_move(&sl->closing, &batch);
    while ((l = sw_list_pop_front(&batch)) != NULL) {
        io__closed(SW_CONTAINER(l, struct sw_stream, ready));
    }
    list_move(&sl->pending, &batch);
    while ((l = list_pop_any(sim, &batch)) != NULL) {
        end_run(sl, SW_CONTAINER(l, struct sim_end, pending));
    }
    list_move(&sl->sockets, &batch);
    while ((l = list_pop_any(sim, &batch)) != NULL) {
        socket_run(sl, SW_CONTAINER(l, struct sim_socket, pending));
    }
}

static void eng_resume(struct sw_stream *s)
{
    eng_read(s);
}

static const struct io_engine io__sim = {
    .name = "sim",
    .init = eng_init,
    .fini = eng_fini,
    .wait = eng_wait,
    .dispatch = eng_dispatch,
    .wake = eng_wake,
    .clock = eng_clock,
    .random = eng_random,
    .connect = eng_connect,
    .read = eng_read,
    .resume = eng_resume,
    .flush = eng_flush,
    .shutdown = eng_shutdown,
    .close = eng_close,
    .addresses = eng_addresses,
    .listen = eng_listen,
    .accept = eng_accept,
    .unlisten = eng_unlisten,
};

/* ---- the network's turn ---------------------------------------------------------------------- */

static void event_run(struct sw_sim *sim, const struct event *ev)
{
    struct sim_conn *c = ev->conn;
    struct sim_end *e = &c->end[ev->side], *peer = end_peer(c, e);

    sim->stats.events++;
    sw_sim_note(sim, ev->due_ns);
    sw_sim_note(sim, c->id << 8 | (uint64_t)ev->kind << 1 | ev->side);
    say(sim, "conn %" PRIu64 ".%u %s %u%s", c->id, ev->side, ev_names[ev->kind], ev->n,
        c->mute ? " (mute)" : "");
    switch ((enum ev_kind)ev->kind) {
    case EV_SYN:
        syn_arrived(sim, c);
        break;
    case EV_OUTCOME:
        if (!e->outcome) {
            e->outcome = true;
            e->err = (uint16_t)ev->n;
        }
        end_pend(e);
        break;
    case EV_DATA:
        SW_ASSERT(e->written - e->arrived >= ev->n || e->closed);
        if (c->mute || e->rst) {
            break; /* nothing overtakes a reset, and nothing follows it */
        }
        if (e->closed) {
            end_send_rst(sim, c, e); /* nobody is there */
            break;
        }
        e->arrived += ev->n;
        end_pend(e);
        break;
    case EV_FIN:
        e->fin = e->fin || (!c->mute && !e->rst);
        end_pend(e);
        break;
    case EV_RST:
        if (!c->mute) {
            end_rst_arrived(sim, e);
        }
        break;
    case EV_WRITABLE:
        e->waking = false;
        e->blocked = false;
        e->writable = true;
        end_pend(e);
        break;
    case EV_SENT:
        if (e->s != NULL && e->s->sending) { /* else eng_close took care */
            e->carry = true;
            end_pend(e);
        }
        break;
    case EV_FATE:
        if (c->fated && sim->faults.reset_ppm == 0 && sim->faults.reset_byte_ppm == 0) {
            break; /* called off */
        }
        for (unsigned i = 0; i < 2; i++) {
            if (c->end[i].connecting && !c->end[i].outcome) {
                c->end[i].outcome = true;
                c->end[i].err = SW_E_RESET;
            }
        }
        e->rst_sent = true;
        peer->rst_sent = true;
        end_rst_arrived(sim, e);
        end_rst_arrived(sim, peer);
        break;
    case EV_MUTE:
        if (sim->faults.mute_ppm != 0) {
            sim->stats.mutes++;
            c->mute = true;
        }
        break;
    case EV_KIND_COUNT:
        SW_UNREACHABLE();
    }
}

static bool loop_has_work(struct sim_loop *sl)
{
    struct sw_loop *loop = sl->loop;

    return !io__idle(loop) || !sw_list_empty(&sl->pending) || !sw_list_empty(&sl->sockets) ||
           !sw_list_empty(&sl->closing) ||
           (!sw_list_empty(&sl->starved) && buf__small_left(loop)) || post__pending(loop) ||
           wheel__next_ns(&loop->wheel) <= sl->sim->now_ns;
}

static struct sim_loop *loop_pick(struct sw_sim *sim)
{
    struct sim_loop *picked = NULL;
    uint64_t count = 0;

    for (uint32_t i = 0; i < sim->loop_count; i++) {
        if (loop_has_work(sim->loops[i])) {
            count++;
            if (sw_rng_below(&sim->order, count) == 0) {
                picked = sim->loops[i];
            }
        }
    }
    return picked;
}

/* When the next thing happens by itself. */
static uint64_t next_ns(struct sw_sim *sim)
{
    uint64_t ns = sim->heap_count > 0 ? sim->heap[0].due_ns : IO_NO_DEADLINE;

    for (uint32_t i = 0; i < sim->loop_count; i++) {
        ns = SW_MIN(ns, wheel__next_ns(&sim->loops[i]->loop->wheel));
    }
    return ns;
}

bool sw_sim_step(struct sw_sim *sim, uint64_t until_ns)
{
    struct sim_loop *sl;
    uint64_t ns;

    sim_check(sim);
    if (sim->now_ns >= until_ns) {
        return false;
    }
    while (sim->heap_count > 0 && sim->heap[0].due_ns <= sim->now_ns) {
        struct event ev = event_pop(sim);

        event_run(sim, &ev);
        conn_unref(sim, ev.conn);
    }
    sl = loop_pick(sim);
    if (sl != NULL) {
        sim->stats.turns++;
        sw_sim_note(sim, sl->index);
        io__turn(sl->loop, 0);
        sim->now_ns += 1 + sw_rng_below(&sim->net, SIM_TURN_NS_MAX);
        if (roll(sim, sim->faults.stall_ppm)) {
            sim->stats.stalls++;
            sim->now_ns += sw_rng_below(&sim->net, sim->faults.stall_ns + 1);
        }
        return true;
    }
    ns = next_ns(sim);
    if (ns == IO_NO_DEADLINE) {
        return false;
    }
    sim->now_ns = SW_MAX(sim->now_ns, SW_MIN(ns, until_ns));
    return true;
}

void sw_sim_run(struct sw_sim *sim, uint64_t until_ns)
{
    while (sw_sim_step(sim, until_ns)) {
    }
    sim->now_ns = SW_MAX(sim->now_ns, until_ns);
}

bool sw_sim_idle(struct sw_sim *sim)
{
    sim_check(sim);
    return sim->heap_count == 0 && loop_pick(sim) == NULL && next_ns(sim) == IO_NO_DEADLINE;
}

/* ---- sim.h ----------------------------------------------------------------------------------- */

struct sw_sim *sw_sim_new(uint64_t seed, const struct sw_sim_faults *faults)
{
    struct sw_sim *sim = calloc(1, sizeof(*sim));

    if (sim == NULL) {
        return NULL;
    }
    sim->magic = SIM_MAGIC;
    sim->now_ns = SIM_START_NS;
    sim->fd_next = SIM_FD_FIRST;
    sw_rng_seed(&sim->net, seed);
    sw_rng_seed(&sim->world, seed ^ 0x776f726c64u);
    sw_rng_seed(&sim->order, seed ^ 0x6f72646572u);
    sw_list_init(&sim->spare);
    sw_list_init(&sim->live);
    if (faults != NULL) {
        sim->faults = *faults;
    }
    return sim;
}

void sw_sim_free(struct sw_sim *sim)
{
    struct sw_link *l;

    if (sim == NULL) {
        return;
    }
    sim_check(sim);
    SW_ASSERT(sim->loop_count == 0);
    while (sim->heap_count > 0) {
        struct event ev = event_pop(sim);

        conn_unref(sim, ev.conn);
    }
    for (size_t i = 0; i < SIM_SOCKETS_MAX; i++) {
        if (sim->sockets[i].open) {
            struct sim_conn *c;

            while ((c = socket_pop(&sim->sockets[i])) != NULL) {
                conn_unref(sim, c);
            }
        }
    }
    SW_ASSERT(sim->stats.connections == 0);
    while ((l = sw_list_pop_front(&sim->spare)) != NULL) {
        struct sim_conn *c = SW_CONTAINER(l, struct sim_conn, backlog);

        free(c->end[0].ring);
        free(c->end[1].ring);
        free(c);
    }
    free(sim->heap);
    sim->magic = 0;
    free(sim);
}

void sw_sim_set_faults(struct sw_sim *sim, const struct sw_sim_faults *faults)
{
    sim_check(sim);
    sim->faults = faults != NULL ? *faults : (struct sw_sim_faults){0};
    for (struct sw_link *l = sim->live.next; sim->faults.mute_ppm == 0 && l != &sim->live;
         l = l->next) {
        struct sim_conn *c = SW_CONTAINER(l, struct sim_conn, live);

        if (c->mute) {
            c->mute = c->fated = false;
            event_add(sim, EV_FATE, c, 0, 0, sim->now_ns + travel_ns(sim));
        }
    }
}

enum sw_err sw_loop_new_sim(struct sw_sim *sim, const struct sw_loop_options *opt,
                            struct sw_loop **ret_loop)
{
    struct sim_loop *sl;
    enum sw_err err;

    sim_check(sim);
    SW_ASSERT(sim->loop_count < SIM_LOOPS_MAX);
    sl = calloc(1, sizeof(*sl));
    if (sl == NULL) {
        return SW_E_NO_MEMORY;
    }
    sl->sim = sim;
    sl->index = sim->loops_made++;
    sl->port_next = 20000;
    sw_rng_seed(&sl->rng, sw_rng_u64(&sim->world));
    sw_list_init(&sl->pending);
    sw_list_init(&sl->sockets);
    sw_list_init(&sl->closing);
    sw_list_init(&sl->starved);
    err = io__loop_new(opt, &io__sim, sl, ret_loop);
    if (err != SW_OK) {
        free(sl);
        return err;
    }
    sim->loops[sim->loop_count++] = sl;
    return SW_OK;
}

enum sw_err sw_sim_listen(struct sw_sim *sim, const struct sw_addr *addr, int backlog, int *ret_fd)
{
    sim_check(sim);
    SW_ASSERT(addr->len > 0);
    SW_ASSERT(backlog > 0);
    for (size_t i = 0; i < SIM_SOCKETS_MAX; i++) {
        struct sim_socket *k = &sim->sockets[i];

        if (!k->open) {
            *k = (struct sim_socket){.fd = sim->fd_next++,
                                     .open = true,
                                     .addr = *addr,
                                     .backlog_max = (uint32_t)backlog};
            sw_list_init(&k->backlog);
            *ret_fd = k->fd;
            return SW_OK;
        }
    }
    return SW_E_NO_FILES;
}

void sw_sim_unlisten(struct sw_sim *sim, int fd)
{
    struct sim_socket *k;
    struct sim_conn *c;

    sim_check(sim);
    k = socket_by_fd(sim, fd);
    SW_ASSERT(k != NULL);
    SW_ASSERT(k->l == NULL);
    while ((c = socket_pop(k)) != NULL) {
        socket_drop(sim, c);
    }
    k->open = false;
}

uint64_t sw_sim_now_ns(const struct sw_sim *sim)
{
    sim_check(sim);
    return sim->now_ns;
}

void sw_sim_wall_step(struct sw_sim *sim, int64_t ns)
{
    sim_check(sim);
    sim->wall_ns += ns;
}

uint64_t sw_sim_hash(const struct sw_sim *sim)
{
    sim_check(sim);
    return sim->hash;
}

uint64_t sw_sim_random(struct sw_sim *sim)
{
    sim_check(sim);
    return sw_rng_u64(&sim->world);
}

void sw_sim_set_trace(struct sw_sim *sim, sw_sim_trace_fn *fn, void *arg)
{
    sim_check(sim);
    sim->trace = fn;
    sim->trace_arg = arg;
}

void sw_sim_stats(const struct sw_sim *sim, struct sw_sim_stats *ret_stats)
{
    sim_check(sim);
    *ret_stats = sim->stats;
}

/* ---- swarms of faults ------------------------------------------------------------------------ */

/* Off half of the time, else up to max, rather low than high. */
static uint32_t swarm_ppm(struct sw_rng *rng, uint32_t max)
{
    if (sw_rng_below(rng, 2) == 0) {
        return 0;
    }
    return (uint32_t)(1 + sw_rng_below(rng, 1 + sw_rng_below(rng, max)));
}

struct sw_sim_faults sw_sim_faults_swarm(struct sw_rng *rng, bool breaking)
{
    static const uint64_t delays[] = {20 * SW_NS_PER_US, 500 * SW_NS_PER_US, 3 * SW_NS_PER_MS,
                                      30 * SW_NS_PER_MS};
    static const uint32_t pipes[] = {1, 40, 700, 5000, 20000, SIM_PIPE_BYTES};
    struct sw_sim_faults f = {0};

    f.delay_max_ns = delays[sw_rng_below(rng, SW_COUNTOF(delays))];
    f.delay_min_ns = f.delay_max_ns / (1 + sw_rng_below(rng, 20));
    f.spike_ppm = swarm_ppm(rng, 50000);
    f.spike_ns = 1 + sw_rng_below(rng, 400 * SW_NS_PER_MS);
    f.short_write_ppm = swarm_ppm(rng, 700000);
    f.short_read_ppm = swarm_ppm(rng, 700000);
    f.one_byte_ppm = swarm_ppm(rng, 500000);
    if (sw_rng_below(rng, 2) == 0) {
        f.pipe_bytes_min = pipes[sw_rng_below(rng, SW_COUNTOF(pipes))];
        f.pipe_bytes_max = SW_MAX(f.pipe_bytes_min, pipes[sw_rng_below(rng, SW_COUNTOF(pipes))]);
        if (f.pipe_bytes_max < 256) { /* one byte at a time takes for ever */
            f.pipe_bytes_max = 256;
        }
    }
    f.overrun_ppm = swarm_ppm(rng, 300000);
    f.lazy_ppm = swarm_ppm(rng, 900000);
    f.stall_ppm = swarm_ppm(rng, 3000);
    f.stall_ns = 1 + sw_rng_below(rng, 300 * SW_NS_PER_MS);
    f.no_files_ppm = swarm_ppm(rng, 10000);
    if (breaking) {
        f.refuse_ppm = swarm_ppm(rng, 100000);
        f.hang_ppm = swarm_ppm(rng, 20000);
        f.reset_ppm = swarm_ppm(rng, 150000);
        f.reset_byte_ppm = swarm_ppm(rng, 10000);
        f.mute_ppm = swarm_ppm(rng, 30000);
        f.reset_within_ns = 1 + sw_rng_below(rng, 3 * SW_NS_PER_S);
        f.drop_unread_ppm = swarm_ppm(rng, 1000000);
    }
    return f;
}
