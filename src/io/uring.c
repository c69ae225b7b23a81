/* io/uring.c - the io_uring engine: all of a turn's work in one system call.
 *
 * Room       io/. The only file that includes liburing.h.
 * Flow       flush: SQEs are written. wait: one io_uring_enter submits them and sleeps.
 *            dispatch: CQEs become io__ calls.
 *
 * Multishot accept, multishot recv (see arm_recv) into a ring of lent buffers, one send in flight a
 * stream (MSG_WAITALL: the kernel repeats short writes). Linux 6.1 (DEFER_TASKRUN) or later; a
 * short test at start decides, not the version. What was measured and left out, as it gained
 * nothing: registered files, CQE_SKIP_SUCCESS for sends, SQPOLL, min-wait
 * (research/performance-limit.md, section 5).
 *
 * The ring is made disabled and enabled by the thread that runs the loop, for SINGLE_ISSUER: so a
 * loop may be made on one thread and run on another. Before that no SQE is written: everything
 * queues in the dirty lists. The loop is to be freed on the thread that ran it, or after its end.
 *
 * Known difference: the kernel accepts ahead of us, so connections that it accepted just before
 * sw_listener_close are closed unanswered; epoll leaves them in the backlog.
 *
 * A slot is kept (ST_CLOSING) and its descriptor open until each operation's last CQE came, those
 * of cancellations included: s->eng.ur.ops. So a descriptor's number cannot be taken by another
 * socket while a cancellation names it.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/io_priv.h"

#define RING_BUFS   1024u /* lent to the kernel; a power of two */
#define BGID        0
#define SQ_MIN      256u
#define SQ_MAX      4096u
#define CQ_FACTOR   4u
#define MSGS        64u /* sendmsg of one submission; the kernel copies them while it submits */
#define FEW_EVENTS  2u
#define FLOOD_READS 16u  /* short reads that end a flood: see arm_recv */
#define FINI_TURNS  100u /* of 10 ms: to wait for cancelled operations */

_Static_assert((RING_BUFS & (RING_BUFS - 1)) == 0, "the kernel wants a power of two");

/* What a CQE belongs to stands in the low bits of user_data: slots are aligned to 16 bytes. */
enum ud {
    UD_NOBODY,
    UD_RECV,
    UD_SEND,
    UD_POLL,
    UD_CONNECT,
    UD_ACCEPT,
    UD_WATCH,
    UD_CANCEL,
    UD_UNACCEPT,
    UD_MASK = 15,
};

struct uring_engine {
    struct io_uring ring;
    bool ring_made, enabled;
    bool few; /* events in this turn: see send_now */
    struct io_watch wake;
    struct io_uring_buf_ring *bufs;
    struct sw_buf *lent[RING_BUFS]; /* by buffer id */
    uint16_t free_bids[RING_BUFS];  /* ids of no buffer */
    unsigned free_count;
    struct sw_link starved;   /* streams whose recv met an empty ring */
    struct sw_link listeners; /* to be armed or cancelled */
    struct sw_link watches;   /* to be armed */
    unsigned msg_count;
    struct msghdr msgs[MSGS];
    struct iovec iovs[MSGS][IO_PIECES_A_SEND];
};

static struct uring_engine *engine(struct sw_loop *loop)
{
    return loop->engine_data;
}

static uint64_t ud_of(const void *ptr, enum ud ud)
{
    SW_ASSERT(((uintptr_t)ptr & UD_MASK) == 0);
    return (uint64_t)(uintptr_t)ptr | (uint64_t)ud;
}

/* NULL: the queue is full and the kernel takes no more now; try again in the next turn. */
static struct io_uring_sqe *get_sqe(struct uring_engine *e)
{
    struct io_uring_sqe *sqe;

    SW_ASSERT(e->enabled);
    sqe = io_uring_get_sqe(&e->ring);
    if (sqe == NULL) {
        (void)io_uring_submit(&e->ring);
        e->msg_count = 0;
        sqe = io_uring_get_sqe(&e->ring);
    }
    return sqe;
}

/* ---- can it be used here? -------------------------------------------------------------------- */

static const unsigned ring_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                   IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;

static struct io_uring_buf_ring *buf_ring_new(struct io_uring *ring, unsigned entries)
{
    struct io_uring_buf_reg reg = {.ring_entries = entries, .bgid = BGID};
    struct io_uring_buf_ring *br = mmap(NULL, entries * sizeof(struct io_uring_buf),
                                        PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (br == MAP_FAILED) {
        return NULL;
    }
    reg.ring_addr = (uint64_t)(uintptr_t)br;
    if (io_uring_register_buf_ring(ring, &reg, 0) != 0) {
        munmap(br, entries * sizeof(struct io_uring_buf));
        return NULL;
    }
    io_uring_buf_ring_init(br);
    return br;
}

static bool probe_ops(struct io_uring *ring)
{
    static const int ops[] = {IORING_OP_POLL_ADD, IORING_OP_ACCEPT, IORING_OP_ASYNC_CANCEL,
                              IORING_OP_SEND,     IORING_OP_RECV,   IORING_OP_SENDMSG};
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool ok = probe != NULL;

    for (size_t i = 0; ok && i < SW_COUNTOF(ops); i++) {
        ok = io_uring_opcode_supported(probe, ops[i]) != 0;
    }
    free(probe);
    return ok;
}

#define PROBE_BUFS  4u
#define PROBE_BYTES 64u

/* Two messages through a socket pair must come as two completions of one multishot recv, each in a
 * buffer of the ring. */
static bool probe_recv(struct io_uring *ring, int reader, int writer)
{
    static const char text[] = "probe";
    char data[PROBE_BUFS][PROBE_BYTES];
    struct io_uring_buf_ring *br = buf_ring_new(ring, PROBE_BUFS);
    struct io_uring_sqe *sqe;
    bool ok = br != NULL;

    if (!ok) {
        return false;
    }
    for (unsigned i = 0; i < PROBE_BUFS; i++) {
        io_uring_buf_ring_add(br, data[i], PROBE_BYTES, (unsigned short)i,
                              io_uring_buf_ring_mask(PROBE_BUFS), (int)i);
    }
    io_uring_buf_ring_advance(br, PROBE_BUFS);
    sqe = io_uring_get_sqe(ring);
    io_uring_prep_recv_multishot(sqe, reader, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    sqe->buf_group = BGID;
    for (unsigned i = 0; ok && i < 2; i++) {
        struct __kernel_timespec second = {.tv_sec = 1};
        struct io_uring_cqe *cqe = NULL;
        unsigned bid;

        ok = io_uring_submit(ring) >= 0 &&
             write(writer, text, sizeof(text)) == (ssize_t)sizeof(text) &&
             io_uring_wait_cqe_timeout(ring, &cqe, &second) == 0;
        if (!ok) {
            break;
        }
        bid = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        ok = cqe->res == (int)sizeof(text) && (cqe->flags & IORING_CQE_F_BUFFER) != 0 &&
             (cqe->flags & IORING_CQE_F_MORE) != 0 && bid < PROBE_BUFS &&
             memcmp(data[bid], text, sizeof(text)) == 0;
        io_uring_cqe_seen(ring, cqe);
    }
    /* The recv must be over before its buffers are: the peer's end is its last completion. */
    shutdown(writer, SHUT_RDWR);
    for (unsigned i = 0; ok && i < 2; i++) {
        struct __kernel_timespec second = {.tv_sec = 1};
        struct io_uring_cqe *cqe = NULL;

        ok = io_uring_wait_cqe_timeout(ring, &cqe, &second) == 0;
        if (ok) {
            bool last = (cqe->flags & IORING_CQE_F_MORE) == 0;

            io_uring_cqe_seen(ring, cqe);
            if (last) {
                break;
            }
        }
    }
    (void)io_uring_unregister_buf_ring(ring, BGID);
    munmap(br, PROBE_BUFS * sizeof(struct io_uring_buf));
    return ok;
}

static bool kernel_can(void)
{
    struct io_uring_params params = {.flags = ring_flags, .cq_entries = 16};
    struct io_uring ring;
    int fds[2];
    bool ok;

    if (io_uring_queue_init_params(8, &ring, &params) != 0) {
        return false; /* old, forbidden by seccomp or by kernel.io_uring_disabled */
    }
    ok = (params.features & IORING_FEAT_EXT_ARG) != 0 && probe_ops(&ring) &&
         socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0;
    if (ok) {
        ok = probe_recv(&ring, fds[0], fds[1]);
        sock__close(fds[0]);
        sock__close(fds[1]);
    }
    io_uring_queue_exit(&ring);
    return ok;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void wake_read(struct sw_loop *loop, struct io_watch *w)
{
    (void)loop; /* the poll is edge-triggered: each write wakes, nobody needs to read */
    (void)w;
}

static enum sw_err ur_watch(struct sw_loop *loop, struct io_watch *w)
{
    sw_list_push_back(&engine(loop)->watches, &w->link);
    return SW_OK;
}

static void engine_free(struct uring_engine *e)
{
    if (e->bufs != NULL) {
        (void)io_uring_unregister_buf_ring(&e->ring, BGID);
        munmap(e->bufs, RING_BUFS * sizeof(struct io_uring_buf));
    }
    if (e->ring_made) {
        io_uring_queue_exit(&e->ring);
    }
    sock__close(e->wake.fd);
    free(e);
}

static enum sw_err ur_init(struct sw_loop *loop)
{
    struct io_uring_params params = {.flags = ring_flags | IORING_SETUP_R_DISABLED};
    struct uring_engine *e;
    unsigned entries = SQ_MIN;
    int rc;

    if (!kernel_can()) {
        return SW_E_UNSUPPORTED;
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return SW_E_NO_MEMORY;
    }
    while (entries < SQ_MAX && entries < loop->opt.streams_max) {
        entries *= 2;
    }
    params.cq_entries = entries * CQ_FACTOR;
    sw_list_init(&e->starved);
    sw_list_init(&e->listeners);
    sw_list_init(&e->watches);
    e->wake = (struct io_watch){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .fn = wake_read};
    if (e->wake.fd < 0) {
        engine_free(e);
        return SW_E_NO_FILES;
    }
    rc = io_uring_queue_init_params(entries, &e->ring, &params);
    e->ring_made = rc == 0;
    if (rc == 0) {
        (void)io_uring_ring_dontfork(&e->ring);
        e->bufs = buf_ring_new(&e->ring, RING_BUFS);
    }
    if (e->bufs == NULL) {
        engine_free(e);
        return rc == -ENOMEM || rc == 0 ? SW_E_NO_MEMORY : SW_E_UNSUPPORTED;
    }
    for (unsigned i = 0; i < RING_BUFS; i++) {
        e->free_bids[i] = (uint16_t)(RING_BUFS - 1 - i);
    }
    e->free_count = RING_BUFS;
    loop->engine_data = e;
    sock__seed(loop);
    return ur_watch(loop, &e->wake);
}

static void ur_enter(struct sw_loop *loop)
{
    struct uring_engine *e = engine(loop);
    long rc;

    if (e->enabled) {
        return;
    }
    /* io_uring_enable_rings is declared, but not exported, by Debian 12's liburing. */
    rc = syscall(__NR_io_uring_register, e->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    SW_ASSERT(rc == 0);
    (void)io_uring_register_ring_fd(&e->ring); /* saves a look-up a turn; not vital */
    e->enabled = true;
}

static void ur_wake(struct sw_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(engine(loop)->wake.fd, &one, sizeof(one));

    (void)n; /* EAGAIN: the counter is full, so the loop is awake */
}

/* ---- streams --------------------------------------------------------------------------------- */

static enum sw_err ur_connect(struct sw_stream *s, const struct sw_addr *addr)
{
    enum sock_way way;
    enum sw_err err = sock__connect(s, addr, &way);

    if (err == SW_OK && way == SOCK_PENDING) {
        s->eng.ur.conn_wait = true;
        io__dirty(s);
    }
    s->eng.ur.fresh = true;
    return err;
}

static enum sw_err ur_adopt(struct sw_stream *s, int fd)
{
    enum sw_err err = sock__prepare_adopted(fd);

    if (err != SW_OK) {
        return err;
    }
    s->fd = fd;
    io__dirty(s);
    return SW_OK;
}

static void ur_finish(struct sw_stream *s)
{
    SW_ASSERT(s->state == ST_CLOSING);
    if (s->eng.ur.ops == 0) {
        sock__close(s->fd);
        s->fd = -1;
        io__closed(s);
    }
}

static void ur_close(struct sw_stream *s)
{
    if (s->eng.ur.ops > 0) {
        io__dirty(s); /* to be cancelled */
    }
    ur_finish(s);
}

static void ur_shutdown(struct sw_stream *s)
{
    (void)shutdown(s->fd, SHUT_WR);
}

static void ur_read(struct sw_stream *s)
{
    io__dirty(s);
}

static void ur_resume(struct sw_stream *s)
{
    io__dirty(s);
}

static struct io_uring_sqe *stream_sqe(struct sw_stream *s)
{
    struct io_uring_sqe *sqe = get_sqe(engine(s->loop));

    if (sqe == NULL) {
        io__dirty(s);
    }
    return sqe;
}

/* A multishot recv fills buffers until it is cancelled: more than a megabyte may follow after the
 * owner stopped reading, each time he stops. So a stream on which a full buffer arrived, or which
 * was stopped, is read one buffer at a time, until several short reads tell that the flood is over.
 * Then a stop costs nothing, as the one recv in flight may stay, and at most one buffer is held. */
static void arm_recv(struct sw_stream *s)
{
    struct io_uring_sqe *sqe = stream_sqe(s);

    if (sqe == NULL) {
        return;
    }
    if (s->eng.ur.singles > 0) {
        io_uring_prep_recv(sqe, s->fd, NULL, SW_BUF_BYTES, 0);
    } else {
        io_uring_prep_recv_multishot(sqe, s->fd, NULL, 0, 0);
    }
    s->eng.ur.recv_multi = s->eng.ur.singles == 0;
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BGID;
    if (s->eng.ur.fresh) {
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
        s->eng.ur.fresh = false;
    }
    sqe->user_data = ud_of(s, UD_RECV);
    s->eng.ur.recv_armed = true;
    s->eng.ur.ops++;
}

static void cancel_recv(struct sw_stream *s)
{
    struct io_uring_sqe *sqe = stream_sqe(s);

    if (sqe == NULL) {
        return;
    }
    io_uring_prep_cancel64(sqe, ud_of(s, UD_RECV), 0);
    sqe->user_data = ud_of(s, UD_CANCEL);
    s->eng.ur.recv_cancel = true;
    s->eng.ur.ops++;
}

/* Watches for errors where no recv does. Multishot, so that a half-close (the kernel adds RDHUP to
 * every mask) does not blind it for the reset behind; once armed it stays. */
static void arm_poll(struct sw_stream *s)
{
    struct io_uring_sqe *sqe = stream_sqe(s);

    if (sqe == NULL) {
        return;
    }
    io_uring_prep_poll_multishot(sqe, s->fd, POLLERR | POLLHUP);
    sqe->user_data = ud_of(s, UD_POLL);
    s->eng.ur.poll_armed = true;
    s->eng.ur.ops++;
}

static void arm_connect(struct sw_stream *s)
{
    struct io_uring_sqe *sqe = stream_sqe(s);

    if (sqe == NULL) {
        return;
    }
    io_uring_prep_poll_add(sqe, s->fd, POLLOUT);
    sqe->user_data = ud_of(s, UD_CONNECT);
    s->eng.ur.conn_wait = false;
    s->eng.ur.ops++;
}

static void cancel_all(struct sw_stream *s)
{
    struct io_uring_sqe *sqe = stream_sqe(s);

    if (sqe == NULL) {
        return;
    }
    io_uring_prep_cancel_fd(sqe, s->fd, IORING_ASYNC_CANCEL_ALL);
    sqe->user_data = ud_of(s, UD_CANCEL);
    s->eng.ur.close_cancel = true;
    s->eng.ur.ops++;
}

static void start_send(struct sw_stream *s)
{
    struct uring_engine *e = engine(s->loop);
    struct io_uring_sqe *sqe = stream_sqe(s);
    struct iovec *iov;
    struct msghdr *msg;
    size_t count, bytes;

    if (sqe == NULL) {
        return;
    }
    if (e->msg_count == MSGS && s->queue.head->next != NULL) {
        /* No room for one more gather list: this send takes one piece. (Submitting here would
         * submit the entry just taken.) */
        count = 1;
        bytes = s->queue.head->len;
    } else if (s->queue.head->next == NULL) {
        count = 1;
        bytes = s->queue.head->len;
    } else {
        iov = e->iovs[e->msg_count];
        msg = &e->msgs[e->msg_count];
        e->msg_count++;
        count = io__gather(s, iov, IO_PIECES_A_SEND, &bytes);
        *msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = count};
        io_uring_prep_sendmsg(sqe, s->fd, msg, MSG_NOSIGNAL | MSG_WAITALL);
    }
    if (count == 1) {
        io_uring_prep_send(sqe, s->fd, s->queue.head->ptr, bytes, MSG_NOSIGNAL | MSG_WAITALL);
    }
    sqe->user_data = ud_of(s, UD_SEND);
    s->sending = true;
    s->eng.ur.ops++;
}

/* In a turn with next to no events there is nothing to share a system call with, and the completion
 * of the send would only end the next wait at once, for a turn of its own: a plain send saves that
 * (about a tenth of the CPU at one connection). What the kernel does not take goes the common way.
 */
static void send_now(struct sw_stream *s)
{
    struct iovec iov[IO_PIECES_A_SEND];
    size_t bytes;
    struct msghdr msg = {.msg_iov = iov};
    ssize_t n;

    msg.msg_iovlen = io__gather(s, iov, IO_PIECES_A_SEND, &bytes);
    if (msg.msg_iovlen == 1) {
        n = send(s->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (n >= 0) {
        io__sent(s, (size_t)n);
    } else if (errno != EAGAIN && errno != EINTR) {
        io__send_failed(s, sock__err(errno));
    }
}

static void ur_flush(struct sw_stream *s)
{
    switch ((enum st_state)s->state) {
    case ST_CONNECTING:
        if (s->eng.ur.conn_wait) {
            arm_connect(s);
        }
        return;
    case ST_CLOSING:
        if (!s->eng.ur.close_cancel) {
            cancel_all(s);
        }
        return;
    case ST_OPEN:
    case ST_LINGER:
        break;
    case ST_FREE:
    case ST_DEAD:
    case ST_STATE_COUNT:
        SW_UNREACHABLE();
    }
    if (io__wants_bytes(s)) {
        if (!s->eng.ur.recv_armed) {
            arm_recv(s);
        } else if (s->eng.ur.recv_multi && s->eng.ur.singles > 0 && !s->eng.ur.recv_cancel) {
            cancel_recv(s);
        }
    } else {
        if (s->eng.ur.recv_multi && s->eng.ur.recv_armed && !s->eng.ur.recv_cancel) {
            s->eng.ur.singles = FLOOD_READS;
            cancel_recv(s);
        }
        if ((!s->eng.ur.recv_armed || s->eng.ur.recv_multi) && !s->eng.ur.poll_armed &&
            !s->broken) {
            arm_poll(s);
        }
    }
    if (io__wants_send(s) && !s->sending && engine(s->loop)->few) {
        send_now(s);
    }
    if (io__wants_send(s) && !s->sending) {
        start_send(s);
    }
}

/* ---- listeners ------------------------------------------------------------------------------- */

static enum sw_err ur_listen(struct sw_listener *l)
{
    sock__prepare_listener(l->fd);
    return SW_OK;
}

static void ur_accept(struct sw_listener *l, bool on)
{
    (void)on; /* l->accepting says it; armed or cancelled before the next wait */
    if (!sw_link_linked(&l->eng)) {
        sw_list_push_back(&engine(l->loop)->listeners, &l->eng);
    }
}

static void ur_unlisten(struct sw_listener *l)
{
    if (l->ops > 0) {
        ur_accept(l, false);
        return;
    }
    sw_link_remove(&l->eng);
    io__listener_closed(l);
}

/* Before a wait: what was asked of listeners and watches. */
static void arm_listeners(struct uring_engine *e)
{
    struct sw_link batch, *at;

    sw_list_init(&batch);
    while ((at = sw_list_pop_front(&e->listeners)) != NULL) {
        struct sw_listener *l = SW_CONTAINER(at, struct sw_listener, eng);
        bool want = l->state == LI_OPEN && l->accepting;
        struct io_uring_sqe *sqe;

        if (want == l->armed || l->cancel) {
            continue; /* the cancellation's CQE asks again */
        }
        sqe = get_sqe(e);
        if (sqe == NULL) {
            sw_list_push_back(&batch, at);
            continue;
        }
        if (want) {
            io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
            sqe->user_data = ud_of(l, UD_ACCEPT);
            l->armed = true;
            l->ops++;
        } else {
            io_uring_prep_cancel64(sqe, ud_of(l, UD_ACCEPT), 0);
            sqe->user_data = ud_of(l, UD_UNACCEPT);
            l->cancel = true;
            l->ops++;
        }
    }
    while ((at = sw_list_pop_front(&batch)) != NULL) {
        sw_list_push_back(&e->listeners, at);
    }
    while (!sw_list_empty(&e->watches)) {
        struct io_watch *w = SW_CONTAINER(e->watches.next, struct io_watch, link);
        struct io_uring_sqe *sqe = get_sqe(e);

        if (sqe == NULL) {
            return;
        }
        sw_link_remove(&w->link);
        io_uring_prep_poll_multishot(sqe, w->fd, POLLIN);
        sqe->user_data = ud_of(w, UD_WATCH);
        w->armed = true;
    }
}

/* ---- completions ----------------------------------------------------------------------------- */

/* The buffer a CQE names; it is the engine's reference from here on. NULL: none. */
static struct sw_buf *take_buf(struct sw_loop *loop, uint32_t flags)
{
    struct uring_engine *e = engine(loop);
    unsigned bid = flags >> IORING_CQE_BUFFER_SHIFT;
    struct sw_buf *buf;

    if ((flags & IORING_CQE_F_BUFFER) == 0) {
        return NULL;
    }
    SW_ASSERT(bid < RING_BUFS);
    buf = e->lent[bid];
    SW_ASSERT(buf != NULL);
    e->lent[bid] = NULL;
    SW_ASSERT(e->free_count < RING_BUFS);
    e->free_bids[e->free_count++] = (uint16_t)bid;
    buf__lent_back(loop);
    return buf;
}

/* In a flood more is there already: read it as epoll does, rather than by a turn for each buffer.
 */
static void read_on(struct sw_stream *s)
{
    for (unsigned i = 1; i < IO_READS_A_TURN && io__wants_bytes(s) && s->held.head == NULL; i++) {
        struct sw_buf *buf = sw_buf_get(s->loop, SW_BUF_BYTES);
        ssize_t n;
        bool full;

        if (buf == NULL) {
            return;
        }
        n = recv(s->fd, buf->data, buf->cap, MSG_DONTWAIT);
        full = n == (ssize_t)buf->cap;
        if (n > 0) {
            io__received(s, buf, 0, (size_t)n);
        } else if (n == 0) {
            io__eof(s);
        } else if (errno != EAGAIN && errno != EINTR) {
            io__broken(s, s->err != SW_OK ? (enum sw_err)s->err : sock__err(errno));
        }
        sw_buf_unref(buf);
        if (!full) {
            return;
        }
    }
}

static void on_recv(struct sw_stream *s, int32_t res, uint32_t flags)
{
    struct sw_loop *loop = s->loop;
    struct sw_buf *buf = take_buf(loop, flags);

    if ((flags & IORING_CQE_F_MORE) == 0) {
        SW_ASSERT(s->eng.ur.ops > 0);
        s->eng.ur.ops--;
        s->eng.ur.recv_armed = false;
    }
    if (s->state == ST_CLOSING) {
        sw_buf_unref(buf);
        ur_finish(s);
        return;
    }
    if (res > 0) {
        SW_ASSERT(buf != NULL);
        if ((uint32_t)res == buf->cap) {
            s->eng.ur.singles = FLOOD_READS;
        } else if (s->eng.ur.singles > 0) {
            s->eng.ur.singles--;
        }
        io__received(s, buf, 0, (size_t)res);
        if ((uint32_t)res == SW_BUF_BYTES && !s->eng.ur.recv_armed) {
            sw_buf_unref(sw_take(&buf));
            read_on(s);
        }
    } else if (res == 0) {
        io__eof(s);
    } else if (res == -ENOBUFS) {
        if (!sw_link_linked(&s->ready)) {
            sw_list_push_back(&engine(loop)->starved, &s->ready);
        }
        sw_buf_unref(buf);
        return;
    } else if (res != -ECANCELED && res != -EINTR && res != -EAGAIN) {
        io__broken(s, s->err != SW_OK ? (enum sw_err)s->err : sock__err(-res));
    }
    sw_buf_unref(buf);
    if (io__alive(s) &&
        (!s->eng.ur.recv_armed || (s->eng.ur.recv_multi && s->eng.ur.singles > 0))) {
        io__dirty(s);
    }
}

/* A cancellation does not find what the kernel is just working on: then it is asked again. */
static void on_cancel(struct sw_stream *s)
{
    SW_ASSERT(s->eng.ur.ops > 0);
    s->eng.ur.ops--;
    s->eng.ur.recv_cancel = false;
    if (s->state == ST_CLOSING) {
        s->eng.ur.close_cancel = false;
        if (s->eng.ur.ops > 0) {
            io__dirty(s);
        }
        ur_finish(s);
        return;
    }
    io__dirty(s);
}

static void on_send(struct sw_stream *s, int32_t res)
{
    SW_ASSERT(s->eng.ur.ops > 0);
    SW_ASSERT(s->sending);
    s->eng.ur.ops--;
    s->sending = false;
    if (s->state == ST_CLOSING) {
        ur_finish(s);
        return;
    }
    if (res >= 0) {
        io__sent(s, (size_t)res); /* short: an error is next, the following send tells */
    } else if (res != -EINTR && res != -EAGAIN) {
        io__send_failed(s, sock__err(-res));
    }
    if (io__wants_send(s)) {
        io__dirty(s);
    }
}

static void on_poll(struct sw_stream *s, int32_t res, uint32_t flags)
{
    if ((flags & IORING_CQE_F_MORE) == 0) {
        SW_ASSERT(s->eng.ur.ops > 0);
        s->eng.ur.ops--;
        s->eng.ur.poll_armed = false;
    }
    if (s->state == ST_CLOSING) {
        ur_finish(s);
        return;
    }
    if (res > 0 && (res & (POLLERR | POLLHUP)) != 0 && !io__wants_bytes(s)) {
        enum sw_err err = sock__take_error(s->fd);

        if (err != SW_OK) {
            io__broken(s, err);
        }
    }
}

static void on_connect(struct sw_stream *s)
{
    SW_ASSERT(s->eng.ur.ops > 0);
    s->eng.ur.ops--;
    if (s->state == ST_CLOSING) {
        ur_finish(s);
        return;
    }
    io__connected(s, sock__take_error(s->fd));
}

static void accepted_fd(struct sw_listener *l, int fd)
{
    struct sw_stream *s = l->state == LI_OPEN ? io__accept_slot(l) : NULL;

    if (s == NULL) {
        sock__close(fd);
        return;
    }
    s->fd = fd;
    s->eng.ur.fresh = true;
    io__dirty(s); /* armed for bytes or for errors, whatever the owner wants */
    io__accepted(l, s);
}

static void on_accept(struct sw_listener *l, int32_t res, uint32_t flags)
{
    if ((flags & IORING_CQE_F_MORE) == 0) {
        SW_ASSERT(l->ops > 0);
        l->ops--;
        l->armed = false;
    }
    if (res >= 0) {
        accepted_fd(l, res);
    }
    if (l->state == LI_CLOSING) {
        ur_unlisten(l);
        return;
    }
    if (l->state != LI_OPEN) {
        return;
    }
    if (res == -EMFILE || res == -ENFILE || res == -ENOMEM || res == -ENOBUFS) {
        if (l->accepting) {
            io__accept_failed(l);
        }
    } else if (l->accepting) {
        (void)io__accept_room(l);
    }
    if (l->accepting && !l->armed) {
        ur_accept(l, true);
    }
}

static void on_unaccept(struct sw_listener *l)
{
    SW_ASSERT(l->ops > 0);
    l->ops--;
    l->cancel = false;
    if (l->state == LI_CLOSING) {
        ur_unlisten(l); /* asks again, or ends */
    } else {
        ur_accept(l, l->accepting);
    }
}

static void on_watch(struct sw_loop *loop, struct io_watch *w, uint32_t flags)
{
    if ((flags & IORING_CQE_F_MORE) == 0) {
        w->armed = false;
        if (!loop->freeing) {
            sw_list_push_back(&engine(loop)->watches, &w->link);
        }
    }
    if (!loop->freeing) {
        w->fn(loop, w);
    }
}

static struct sw_stream *stream_of(void *ptr)
{
    struct sw_stream *s = ptr;

    SW_ASSERT(s->magic == IO_STREAM_MAGIC);
    SW_ASSERT(s->state != ST_DEAD);
    return s;
}

static void ur_dispatch(struct sw_loop *loop)
{
    struct uring_engine *e = engine(loop);

    unsigned ready = io_uring_cq_ready(&e->ring);

    e->few = ready <= FEW_EVENTS;
    for (unsigned n = ready; n > 0; n--) {
        struct io_uring_cqe *cqe;
        uint64_t ud;
        int32_t res;
        uint32_t flags;
        void *ptr;

        if (io_uring_peek_cqe(&e->ring, &cqe) != 0) {
            return;
        }
        ud = cqe->user_data;
        res = cqe->res;
        flags = cqe->flags;
        io_uring_cqe_seen(&e->ring, cqe);
        ptr = (void *)(uintptr_t)(ud & ~(uint64_t)UD_MASK);
        switch ((enum ud)(ud & UD_MASK)) {
        case UD_NOBODY:
            break;
        case UD_RECV:
            on_recv(stream_of(ptr), res, flags);
            break;
        case UD_SEND:
            on_send(stream_of(ptr), res);
            break;
        case UD_POLL:
            on_poll(stream_of(ptr), res, flags);
            break;
        case UD_CANCEL:
            on_cancel(stream_of(ptr));
            break;
        case UD_CONNECT:
            on_connect(stream_of(ptr));
            break;
        case UD_ACCEPT:
            on_accept(ptr, res, flags);
            break;
        case UD_UNACCEPT:
            on_unaccept(ptr);
            break;
        case UD_WATCH:
            on_watch(loop, ptr, flags);
            break;
        case UD_MASK:
            SW_UNREACHABLE();
        }
    }
}

/* ---- turns ----------------------------------------------------------------------------------- */

/* Fills the ring up, as far as the budget goes. */
static void lend(struct sw_loop *loop)
{
    struct uring_engine *e = engine(loop);
    int added = 0;

    while (e->free_count > 0) {
        struct sw_buf *buf = buf__lend(loop);
        uint16_t bid;

        if (buf == NULL) {
            break;
        }
        bid = e->free_bids[--e->free_count];
        SW_ASSERT(e->lent[bid] == NULL);
        e->lent[bid] = buf;
        io_uring_buf_ring_add(e->bufs, buf->data, buf->cap, bid, io_uring_buf_ring_mask(RING_BUFS),
                              added);
        added++;
    }
    if (added > 0) {
        io_uring_buf_ring_advance(e->bufs, added);
    }
}

static void submit_and_wait(struct sw_loop *loop, uint64_t deadline_ns)
{
    struct uring_engine *e = engine(loop);
    struct io_uring_cqe *cqe;
    struct __kernel_timespec ts;
    uint64_t ns = 0;
    int rc;

    if (deadline_ns != 0 && deadline_ns != IO_NO_DEADLINE) {
        uint64_t now = sock__clock(loop, NULL);

        ns = deadline_ns > now ? deadline_ns - now : 0;
    }
    if (deadline_ns == IO_NO_DEADLINE) {
        rc = io_uring_submit_and_wait(&e->ring, 1);
    } else if (ns == 0) {
        rc = io_uring_submit_and_get_events(&e->ring);
    } else {
        ts = (struct __kernel_timespec){.tv_sec = (int64_t)(ns / SW_NS_PER_S),
                                        .tv_nsec = (long long)(ns % SW_NS_PER_S)};
        rc = io_uring_submit_and_wait_timeout(&e->ring, &cqe, 1, &ts, NULL);
    }
    /* EBUSY, EAGAIN: the kernel wants its completions read first, or has no memory just now; what
     * it did not take stays queued. */
    SW_ASSERT(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN ||
              rc == -ENOMEM);
    if (io_uring_sq_ready(&e->ring) == 0) {
        e->msg_count = 0;
    }
}

static void ur_wait(struct sw_loop *loop, uint64_t deadline_ns)
{
    struct uring_engine *e = engine(loop);

    lend(loop);
    for (uint32_t n = loop->ring_bufs; n > 0 && !sw_list_empty(&e->starved); n--) {
        struct sw_stream *s = SW_CONTAINER(sw_list_pop_front(&e->starved), struct sw_stream, ready);

        ur_flush(s);
    }
    arm_listeners(e);
    submit_and_wait(loop, deadline_ns);
}

/* Cancels what is in flight and waits for it, where this thread may; elsewhere the thread that ran
 * the loop has ended, and the kernel cancelled all with it. */
static void ur_drain(struct sw_loop *loop)
{
    struct uring_engine *e = engine(loop);

    if (!e->enabled || !pthread_equal(loop->thread, pthread_self())) {
        return;
    }
    for (unsigned i = 0; i < FINI_TURNS; i++) {
        if (sw_list_empty(&loop->live) && sw_list_empty(&loop->listeners)) {
            return;
        }
        stream__flush(loop);
        arm_listeners(e);
        submit_and_wait(loop, sock__clock(loop, NULL) + 10 * SW_NS_PER_MS);
        ur_dispatch(loop);
    }
}

static void ur_fini(struct sw_loop *loop)
{
    ur_drain(loop);
    for (struct sw_link *l = loop->live.next; l != &loop->live; l = l->next) {
        sock__close(SW_CONTAINER(l, struct sw_stream, link)->fd);
    }
    engine_free(engine(loop));
}

const struct io_engine io__uring = {
    .name = "io_uring",
    .lent_max = RING_BUFS,
    .init = ur_init,
    .fini = ur_fini,
    .enter = ur_enter,
    .wait = ur_wait,
    .dispatch = ur_dispatch,
    .wake = ur_wake,
    .clock = sock__clock,
    .random = sock__random,
    .connect = ur_connect,
    .adopt = ur_adopt,
    .read = ur_read,
    .resume = ur_resume,
    .flush = ur_flush,
    .shutdown = ur_shutdown,
    .close = ur_close,
    .addresses = sock__addresses,
    .listen = ur_listen,
    .accept = ur_accept,
    .unlisten = ur_unlisten,
    .watch = ur_watch,
};
