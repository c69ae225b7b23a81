/* io/stream.c - the life of a connection: queue, held bytes, ends, linger; common to all engines.
 *
 * Room       io/. Knows no descriptor: engines move the bytes.
 * Flow       io.h's calls set wishes (reading, queue, shutdown) and mark the stream dirty or ready;
 *            the loop's turn lets the engine act; the engine reports through the io__ functions.
 */
#include <sys/uio.h>

#include "io/io_priv.h"

/* Which state may follow which. */
static const uint32_t st_arrows[ST_STATE_COUNT] = {
    [ST_FREE] = SW_BIT(ST_CONNECTING) | SW_BIT(ST_OPEN),
    [ST_CONNECTING] = SW_BIT(ST_OPEN) | SW_BIT(ST_CLOSING) | SW_BIT(ST_FREE),
    [ST_OPEN] = SW_BIT(ST_LINGER) | SW_BIT(ST_CLOSING) | SW_BIT(ST_FREE), /* FREE: adopt failed */
    [ST_LINGER] = SW_BIT(ST_CLOSING),
    [ST_CLOSING] = SW_BIT(ST_DEAD),
    [ST_DEAD] = SW_BIT(ST_FREE),
};

static void stream_to(struct sw_stream *s, enum st_state to)
{
    SW_ASSERT(s->magic == IO_STREAM_MAGIC);
    SW_ASSERT(s->state < ST_STATE_COUNT);
    SW_ASSERT((st_arrows[s->state] & SW_BIT(to)) != 0);
    s->state = (uint8_t)to;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

SW_MUST static bool pieces_push(struct sw_loop *loop, struct io_pieces *list, struct sw_buf *buf,
                                const char *ptr, size_t len)
{
    struct io_piece *p = list->tail;

    SW_ASSERT(len > 0);
    if (p != NULL && p->buf == buf &&
        p->ptr + p->len == ptr) { /* goes on where the last one ends */
        p->len += len;
        return true;
    }
    p = sw_pool_get(&loop->piece_pool);
    if (p == NULL) {
        return false;
    }
    io__count(&loop->counters.pieces, 1);
    *p = (struct io_piece){NULL, buf == NULL ? NULL : sw_buf_ref(buf), ptr, len};
    if (list->tail != NULL) {
        list->tail->next = p;
    } else {
        list->head = p;
    }
    list->tail = p;
    return true;
}

static void pieces_pop(struct sw_loop *loop, struct io_pieces *list)
{
    struct io_piece *p = list->head;

    list->head = p->next;
    if (list->head == NULL) {
        list->tail = NULL;
    }
    sw_buf_unref(p->buf);
    sw_pool_put(&loop->piece_pool, p);
    io__count(&loop->counters.pieces, -1u);
}

static void pieces_drop(struct sw_loop *loop, struct io_pieces *list)
{
    while (list->head != NULL) {
        pieces_pop(loop, list);
    }
}

/* Drops what is to be sent, unless the kernel still reads from it. */
static void queue_drop(struct sw_stream *s)
{
    if (!s->sending) {
        pieces_drop(s->loop, &s->queue);
        s->queued = 0;
    }
}

size_t io__gather(const struct sw_stream *s, struct iovec *iov, size_t max, size_t *ret_bytes)
{
    size_t count = 0, bytes = 0;

    for (const struct io_piece *p = s->queue.head; p != NULL && count < max; p = p->next) {
        iov[count].iov_base = (void *)(uintptr_t)p->ptr;
        iov[count].iov_len = p->len;
        bytes += p->len;
        count++;
    }
    *ret_bytes = bytes;
    return count;
}

/* ---- slots ----------------------------------------------------------------------------------- */

static struct sw_stream *stream_new(struct sw_loop *loop, enum st_state state)
{
    struct sw_stream *s = sw_pool_get(&loop->stream_pool);

    if (s == NULL) {
        return NULL;
    }
    *s = (struct sw_stream){.magic = IO_STREAM_MAGIC, .fd = -1, .loop = loop};
    stream_to(s, state);
    sw_list_push_back(&loop->live, &s->link);
    return s;
}

/* A slot that never came to life. */
static void stream_undo(struct sw_stream *s)
{
    struct sw_loop *loop = s->loop;

    sw_link_remove(&s->link);
    sw_link_remove(&s->dirty);
    sw_link_remove(&s->ready);
    sw_timer_stop(loop, &s->timer);
    pieces_drop(loop, &s->held);
    stream_to(s, ST_FREE);
    s->magic = 0;
    sw_pool_put(&loop->stream_pool, s);
}

static void open_count(struct sw_loop *loop, uint32_t n)
{
    loop->open += n;
    atomic_store_explicit(&loop->counters.streams, loop->open, memory_order_relaxed);
}

/* The end of every stream. */
static void stream_end(struct sw_stream *s)
{
    struct sw_loop *loop = s->loop;

    stream_to(s, ST_CLOSING);
    sw_timer_stop(loop, &s->timer);
    sw_link_remove(&s->ready);
    pieces_drop(loop, &s->held);
    queue_drop(s);
    s->events = NULL;
    if (!s->parked) {
        open_count(loop, -1u);
    }
    loop->engine->close(s);
}

void io__closed(struct sw_stream *s)
{
    s->sending = false;
    queue_drop(s);
    stream_to(s, ST_DEAD);
    sw_link_remove(&s->link);
    sw_link_remove(&s->dirty);
    sw_link_remove(&s->ready);
    sw_list_push_back(&s->loop->dead, &s->link);
}

void stream__reap(struct sw_loop *loop)
{
    struct sw_link *l;

    while ((l = sw_list_pop_front(&loop->dead)) != NULL) {
        struct sw_stream *s = SW_CONTAINER(l, struct sw_stream, link);

        stream_to(s, ST_FREE);
        s->magic = 0;
        sw_pool_put(&loop->stream_pool, s);
    }
}

void stream__free_all(struct sw_loop *loop)
{
    struct sw_link *l, *next;

    for (l = loop->live.next; l != &loop->live; l = next) {
        struct sw_stream *s = SW_CONTAINER(l, struct sw_stream, link);

        next = l->next;
        if (s->state != ST_CLOSING) {
            stream_end(s);
        }
    }
}

/* ---- telling the owner ----------------------------------------------------------------------- */

/* Tells the end, if there is one and its time has come. */
static void stream_tell(struct sw_stream *s)
{
    if (s->state != ST_OPEN || s->broken_told) {
        return;
    }
    if (s->broken) {
        if (s->held.head != NULL && s->reading) {
            return; /* first what came before */
        }
        s->broken_told = true;
        SW_ASSERT(s->events != NULL);
        s->events->end(s, s->arg, (enum sw_err)s->err);
        return;
    }
    if (s->eof && !s->eof_told && s->reading && s->held.head == NULL) {
        s->eof_told = true;
        SW_ASSERT(s->events != NULL);
        s->events->end(s, s->arg, SW_E_CLOSED);
    }
}

/* Half-closes when the queue is empty and that was asked for; ends a stream that lingered enough.
 */
static void stream_settle(struct sw_stream *s)
{
    if (!io__alive(s)) {
        return;
    }
    if (s->queue.head == NULL && s->shut_want && !s->shut_done && !s->broken && s->err == SW_OK) {
        s->shut_done = true;
        s->loop->engine->shutdown(s);
    }
    if (s->state == ST_LINGER && (s->broken || s->err != SW_OK || (s->shut_done && s->eof))) {
        stream_end(s);
    }
}

void io__connected(struct sw_stream *s, enum sw_err err)
{
    if (s->state != ST_CONNECTING) {
        return;
    }
    sw_timer_stop(s->loop, &s->timer);
    pieces_drop(s->loop, &s->held); /* the address, if connect had to be tried again */
    stream_to(s, ST_OPEN);
    s->conn_done = false;
    if (err != SW_OK) {
        s->broken = true;
        s->broken_told = true; /* by connected */
        s->err = (uint16_t)err;
        queue_drop(s);
    } else {
        s->err = SW_OK;
        s->loop->engine->read(s);
        io__dirty(s);
    }
    SW_ASSERT(s->events != NULL);
    SW_ASSERT(s->events->connected != NULL);
    s->events->connected(s, s->arg, err);
}

void io__received(struct sw_stream *s, struct sw_buf *buf, size_t off, size_t len)
{
    struct sw_loop *loop = s->loop;

    SW_ASSERT(len > 0);
    SW_ASSERT(off + len <= buf->cap);
    io__count(&loop->counters.recvs, 1);
    if (s->state != ST_OPEN || s->broken) {
        return; /* lingers: read and discarded */
    }
    if (!s->reading || s->held.head != NULL) {
        if (pieces_push(loop, &s->held, buf, buf->data + off, len)) {
            return;
        }
        if (s->held.head != NULL) { /* bytes must not overtake those held: give up */
            io__broken(s, SW_E_NO_BUFFERS);
            return;
        }
    }
    SW_ASSERT(s->events != NULL);
    s->events->recv(s, s->arg, buf, (struct sw_slice){buf->data + off, len});
}

void io__eof(struct sw_stream *s)
{
    if (!io__alive(s) || s->broken) {
        return;
    }
    s->eof = true;
    if (s->err != SW_OK) { /* a send failed before: this was its reason */
        io__broken(s, (enum sw_err)s->err);
        return;
    }
    stream_tell(s);
    stream_settle(s);
}

void io__broken(struct sw_stream *s, enum sw_err err)
{
    SW_ASSERT(err != SW_OK);
    if (!io__alive(s) || s->broken) {
        return;
    }
    s->broken = true;
    s->err = (uint16_t)err;
    queue_drop(s);
    stream_tell(s);
    stream_settle(s);
}

void io__send_failed(struct sw_stream *s, enum sw_err err)
{
    SW_ASSERT(err != SW_OK);
    if (!io__alive(s)) {
        return;
    }
    if (s->broken) {
        queue_drop(s);
        return;
    }
    if (s->state == ST_OPEN && s->reading && !s->eof && err == SW_E_RESET) {
        s->err = (uint16_t)err;
        queue_drop(s);
        return; /* reading will find the end */
    }
    io__broken(s, err);
}

void io__sent(struct sw_stream *s, size_t n)
{
    struct sw_loop *loop = s->loop;

    SW_ASSERT(n <= s->queued);
    io__count(&loop->counters.sends, 1);
    s->queued -= n;
    while (n > 0) {
        struct io_piece *p = s->queue.head;

        SW_ASSERT(p != NULL);
        if (n < p->len) {
            p->ptr += n;
            p->len -= n;
            break;
        }
        n -= p->len;
        pieces_pop(loop, &s->queue);
    }
    if (s->broken || s->err != SW_OK) {
        queue_drop(s);
        return;
    }
    if (s->queue.head != NULL || !io__alive(s)) {
        return;
    }
    if (s->state == ST_OPEN && s->events->sent != NULL) {
        s->events->sent(s, s->arg);
    }
    stream_settle(s);
}

/* ---- the phases of a turn -------------------------------------------------------------------- */

static void stream_resume(struct sw_stream *s)
{
    struct sw_loop *loop = s->loop;

    if (s->state == ST_CONNECTING && s->conn_done) {
        io__connected(s, (enum sw_err)s->err);
        return;
    }
    while (s->state == ST_OPEN && s->reading && s->held.head != NULL) {
        struct io_pieces one = {s->held.head, s->held.head};

        s->held.head = one.head->next;
        if (s->held.head == NULL) {
            s->held.tail = NULL;
        }
        one.head->next = NULL;
        s->events->recv(s, s->arg, one.head->buf, (struct sw_slice){one.head->ptr, one.head->len});
        pieces_drop(loop, &one);
    }
    stream_tell(s);
    if (s->state == ST_OPEN && !s->broken && s->err != SW_OK && !s->reading) {
        io__broken(s, (enum sw_err)s->err); /* nobody will read up to the end */
    }
    if (io__alive(s)) {
        loop->engine->resume(s);
    }
}

static void splice(struct sw_link *from, struct sw_link *to)
{
    sw_list_init(to);
    if (!sw_list_empty(from)) {
        *to = *from;
        to->next->prev = to;
        to->prev->next = to;
        sw_list_init(from);
    }
}

void stream__run_ready(struct sw_loop *loop)
{
    struct sw_link batch, *l;

    splice(&loop->ready, &batch);
    while ((l = sw_list_pop_front(&batch)) != NULL) {
        stream_resume(SW_CONTAINER(l, struct sw_stream, ready));
    }
}

void stream__flush(struct sw_loop *loop)
{
    /* What `sent` callbacks queue leaves in the same turn, but not without bound. */
    for (unsigned round = 0; round < 4 && !sw_list_empty(&loop->dirty); round++) {
        struct sw_link batch, *l;

        splice(&loop->dirty, &batch);
        while ((l = sw_list_pop_front(&batch)) != NULL) {
            struct sw_stream *s = SW_CONTAINER(l, struct sw_stream, dirty);

            loop->engine->flush(s);
            stream_settle(s);
        }
    }
}

/* ---- accepted streams ------------------------------------------------------------------------ */

struct sw_stream *io__accept_slot(struct sw_listener *l)
{
    struct sw_stream *s = stream_new(l->loop, ST_OPEN);

    if (s != NULL) {
        s->parked = true;
        s->arg = l;
    }
    return s;
}

void io__accept_undo(struct sw_stream *s)
{
    SW_ASSERT(s->parked);
    stream_undo(s);
}

void io__accepted(struct sw_listener *l, struct sw_stream *s)
{
    struct sw_loop *loop = l->loop;

    SW_ASSERT(s->parked);
    SW_ASSERT(s->arg == l);
    SW_ASSERT(l->state == LI_OPEN);
    if (loop->open >= loop->opt.streams_max) {
        sw_list_push_back(&loop->parked, &s->ready);
        return;
    }
    s->parked = false;
    s->arg = NULL;
    open_count(loop, 1);
    io__count(&loop->counters.accepts, 1);
    l->fn(s, l->arg);
}

void stream__unpark(struct sw_loop *loop)
{
    struct sw_link *l;

    while (loop->open < loop->opt.streams_max && (l = sw_list_pop_front(&loop->parked)) != NULL) {
        struct sw_stream *s = SW_CONTAINER(l, struct sw_stream, ready);

        io__accepted(s->arg, s);
    }
}

void stream__drop_parked(struct sw_listener *l)
{
    struct sw_link *at, *next;

    for (at = l->loop->parked.next; at != &l->loop->parked; at = next) {
        struct sw_stream *s = SW_CONTAINER(at, struct sw_stream, ready);

        next = at->next;
        if (s->arg == l) {
            stream_end(s);
        }
    }
}

/* ---- io.h ------------------------------------------------------------------------------------ */

enum sw_err sw_stream_connect(struct sw_loop *loop, const struct sw_addr *addr,
                              const struct sw_stream_events *events, void *arg,
                              struct sw_stream **ret_stream)
{
    struct sw_stream *s;
    enum sw_err err;

    io__check(loop);
    SW_ASSERT(addr != NULL);
    SW_ASSERT(addr->len > 0);
    SW_ASSERT(events != NULL);
    if (loop->open >= loop->opt.streams_max) {
        return SW_E_LIMIT;
    }
    s = stream_new(loop, ST_CONNECTING);
    if (s == NULL) {
        return SW_E_LIMIT;
    }
    s->events = events;
    s->arg = arg;
    io__small_addr_set(&s->peer, addr);
    err = loop->engine->connect(s, addr);
    if (err != SW_OK) {
        stream_undo(s);
        return err;
    }
    open_count(loop, 1);
    *ret_stream = s;
    return SW_OK;
}

enum sw_err sw_stream_adopt(struct sw_loop *loop, int fd, const struct sw_stream_events *events,
                            void *arg, struct sw_stream **ret_stream)
{
    struct sw_stream *s;
    enum sw_err err;

    io__check(loop);
    SW_ASSERT(events != NULL);
    if (loop->engine->adopt == NULL) {
        return SW_E_UNSUPPORTED;
    }
    s = loop->open < loop->opt.streams_max ? stream_new(loop, ST_OPEN) : NULL;
    if (s == NULL) {
        sock__close(fd);
        return SW_E_LIMIT;
    }
    s->events = events;
    s->arg = arg;
    err = loop->engine->adopt(s, fd);
    if (err != SW_OK) {
        sock__close(fd);
        stream_undo(s);
        return err;
    }
    open_count(loop, 1);
    *ret_stream = s;
    return SW_OK;
}

void sw_stream_attach(struct sw_stream *s, const struct sw_stream_events *events, void *arg)
{
    io__check_stream(s);
    SW_ASSERT(events != NULL);
    s->events = events;
    s->arg = arg;
}

/* To the ready list, even if the stream starves in an engine's list now. */
static void ready_again(struct sw_stream *s)
{
    sw_link_remove(&s->ready);
    io__ready(s);
}

void sw_stream_read_start(struct sw_stream *s)
{
    io__check_stream(s);
    if (s->reading) {
        return;
    }
    s->reading = true;
    if (s->state == ST_CONNECTING) {
        return; /* io__connected begins */
    }
    SW_ASSERT(s->events != NULL);
    if (s->held.head != NULL || (s->eof && !s->eof_told)) {
        ready_again(s);
    }
    s->loop->engine->read(s);
}

void sw_stream_read_stop(struct sw_stream *s)
{
    io__check_stream(s);
    if (!s->reading) {
        return;
    }
    s->reading = false;
    if (s->state == ST_CONNECTING) {
        return;
    }
    if (s->broken ? !s->broken_told : s->err != SW_OK) {
        ready_again(s);
    }
    s->loop->engine->read(s);
}

bool sw_stream_reading(const struct sw_stream *s)
{
    io__check_stream(s);
    return s->reading;
}

enum sw_err sw_stream_send(struct sw_stream *s, struct sw_buf *buf, struct sw_slice bytes)
{
    io__check_stream(s);
    SW_ASSERT(!s->shut_want);
    if (bytes.len == 0 || s->broken || (s->state == ST_OPEN && s->err != SW_OK)) {
        return SW_OK; /* broken: the owner knows, or learns it soon */
    }
    SW_ASSERT(buf == NULL || (bytes.ptr >= buf->data && bytes.len <= buf->cap &&
                              (size_t)(bytes.ptr - buf->data) <= buf->cap - bytes.len));
    if (!pieces_push(s->loop, &s->queue, buf, bytes.ptr, bytes.len)) {
        return SW_E_NO_BUFFERS;
    }
    s->queued += bytes.len;
    io__dirty(s);
    return SW_OK;
}

size_t sw_stream_queued(const struct sw_stream *s)
{
    io__check_stream(s);
    return s->queued;
}

void sw_stream_shutdown(struct sw_stream *s)
{
    io__check_stream(s);
    s->shut_want = true;
    io__dirty(s);
}

void sw_stream_close(struct sw_stream *s)
{
    io__check_stream(s);
    stream_end(s);
}

static void linger_over(struct sw_timer *t, void *arg)
{
    struct sw_stream *s = arg;

    SW_ASSERT(t == &s->timer);
    SW_ASSERT(s->state == ST_LINGER);
    stream_end(s);
}

void sw_stream_linger(struct sw_stream *s, uint64_t deadline_ns)
{
    struct sw_loop *loop;

    io__check_stream(s);
    loop = s->loop;
    if (s->state == ST_CONNECTING || s->broken || s->err != SW_OK) {
        stream_end(s); /* there is nobody to be polite to */
        return;
    }
    stream_to(s, ST_LINGER);
    s->events = NULL;
    s->arg = NULL;
    pieces_drop(loop, &s->held);
    s->shut_want = true;
    sw_timer_init(&s->timer, linger_over, s);
    sw_timer_start(loop, &s->timer, deadline_ns);
    s->reading = true;
    loop->engine->read(s);
    io__dirty(s);
}

const struct sw_addr *sw_stream_peer(const struct sw_stream *cs)
{
    struct sw_stream *s = (struct sw_stream *)(uintptr_t)cs; /* it remembers the answer */
    struct sw_addr *addr;

    io__check_stream(s);
    addr = &s->loop->peer_scratch;
    if (s->peer.family == AF_UNSPEC) {
        s->loop->engine->addresses(s, false, addr);
        io__small_addr_set(&s->peer, addr);
    }
    io__small_addr_get(&s->peer, addr);
    return addr;
}

const struct sw_addr *sw_stream_local(struct sw_stream *s)
{
    struct sw_addr *addr;

    io__check_stream(s);
    addr = &s->loop->local_scratch;
    if (s->local.family == AF_UNSPEC) {
        s->loop->engine->addresses(s, true, addr);
        io__small_addr_set(&s->local, addr);
    }
    io__small_addr_get(&s->local, addr);
    return addr;
}

struct sw_loop *sw_stream_loop(const struct sw_stream *s)
{
    io__check_stream(s);
    return s->loop;
}
