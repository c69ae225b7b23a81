/* io/epoll.c - the engine that works everywhere: readiness turned into completions.
 *
 * Room       io/.
 * Flow       wait: one epoll_pwait2. dispatch: accept4, recv. flush: send or sendmsg.
 *
 * Edge-triggered, one registration a socket, no epoll_ctl in the life of a common connection. A
 * recv that fills less than its buffer has drained the socket (no call to see EAGAIN), unless the
 * end was announced: then reading goes on up to it. EPOLLOUT is added by one EPOLL_CTL_MOD after
 * the first write that was refused, and stays: on Unix sockets it would otherwise wake us for each
 * read of the peer. Listeners are level-triggered: what is not accepted in this turn is told again.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/io_priv.h"

#define EVENTS_A_WAIT 512

/* What an event belongs to stands in the low bits of its pointer: slots are aligned to 16 bytes. */
enum tag { TAG_STREAM, TAG_LISTENER, TAG_WATCH, TAG_MASK = 7 };

struct epoll_engine {
    int epoll_fd;
    struct io_watch wake;
    bool no_pwait2;         /* an old kernel, or seccomp */
    int count;              /* events of this turn */
    struct sw_buf *buf;     /* received into; given back before wait */
    struct sw_link starved; /* streams that wait for a buffer */
    struct epoll_event events[EVENTS_A_WAIT];
};

static struct epoll_engine *engine(struct sw_loop *loop)
{
    return loop->engine_data;
}

static enum sw_err control(struct sw_loop *loop, int op, int fd, uint32_t mask, void *ptr,
                           enum tag tag)
{
    struct epoll_event ev = {.events = mask, .data.u64 = (uint64_t)(uintptr_t)ptr | (uint64_t)tag};

    SW_ASSERT(((uintptr_t)ptr & TAG_MASK) == 0);
    return epoll_ctl(engine(loop)->epoll_fd, op, fd, &ev) == 0 ? SW_OK : sock__err(errno);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void wake_read(struct sw_loop *loop, struct io_watch *w)
{
    (void)loop; /* edge-triggered: each write wakes, nobody needs to read */
    (void)w;
}

static enum sw_err ep_watch(struct sw_loop *loop, struct io_watch *w)
{
    return control(loop, EPOLL_CTL_ADD, w->fd, EPOLLIN | EPOLLET, w, TAG_WATCH);
}

static void ep_fini(struct sw_loop *loop)
{
    struct epoll_engine *e = engine(loop);

    SW_ASSERT(sw_list_empty(&loop->live)); /* close is immediate here */
    sock__close(e->epoll_fd);
    sock__close(e->wake.fd);
    free(e);
}

static enum sw_err ep_init(struct sw_loop *loop)
{
    struct epoll_engine *e = calloc(1, sizeof(*e));

    if (e == NULL) {
        return SW_E_NO_MEMORY;
    }
    loop->engine_data = e;
    sw_list_init(&e->starved);
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->wake = (struct io_watch){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .fn = wake_read};
    if (e->epoll_fd < 0 || e->wake.fd < 0 || ep_watch(loop, &e->wake) != SW_OK) {
        ep_fini(loop);
        return SW_E_NO_FILES;
    }
    sock__seed(loop);
    return SW_OK;
}

static void ep_wake(struct sw_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(engine(loop)->wake.fd, &one, sizeof(one));

    (void)n; /* EAGAIN: the counter is full, so the loop is awake */
}

/* ---- streams --------------------------------------------------------------------------------- */

#define MASK_READ (EPOLLIN | EPOLLRDHUP | EPOLLET)

static enum sw_err ep_register(struct sw_stream *s, uint32_t mask)
{
    s->eng.ep.mask = mask;
    return control(s->loop, EPOLL_CTL_ADD, s->fd, mask, s, TAG_STREAM);
}

static enum sw_err ep_connect(struct sw_stream *s, const struct sw_addr *addr)
{
    enum sock_way way;
    enum sw_err err = sock__connect(s, addr, &way);

    if (err != SW_OK) {
        return err;
    }
    if (way == SOCK_LATER) {
        return SW_OK; /* an unconnected Unix socket reports HUP: registered when connected */
    }
    err = ep_register(s, way == SOCK_PENDING ? MASK_READ | EPOLLOUT : MASK_READ);
    if (err != SW_OK) {
        sock__close(s->fd);
        s->fd = -1;
    }
    return err;
}

static enum sw_err ep_adopt(struct sw_stream *s, int fd)
{
    enum sw_err err = sock__prepare_adopted(fd);
    int type = 0;
    socklen_t len = sizeof(type);

    if (err != SW_OK) {
        return err;
    }
    (void)getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
    s->eng.ep.records = type != SOCK_STREAM;
    s->fd = fd;
    return ep_register(s, MASK_READ);
}

static void ep_close(struct sw_stream *s)
{
    sock__close(s->fd); /* leaves the epoll set with it */
    s->fd = -1;
    io__closed(s);
}

static void ep_shutdown(struct sw_stream *s)
{
    (void)shutdown(s->fd, SHUT_WR); /* ENOTCONN: the read side tells */
}

static void ep_starve(struct sw_stream *s)
{
    if (!sw_link_linked(&s->ready)) {
        sw_list_push_back(&engine(s->loop)->starved, &s->ready);
    }
}

static void ep_receive(struct sw_stream *s)
{
    struct epoll_engine *e = engine(s->loop);

    for (unsigned i = 0; i < IO_READS_A_TURN; i++) {
        ssize_t n;

        if (e->buf == NULL) {
            e->buf = sw_buf_get(s->loop, SW_BUF_BYTES);
            if (e->buf == NULL) {
                ep_starve(s);
                return;
            }
        }
        n = recv(s->fd, e->buf->data, e->buf->cap, 0);
        if (n > 0) {
            if ((size_t)n < e->buf->cap && !s->eng.ep.hup && !s->eng.ep.records) {
                s->eng.ep.readable = false;
            }
            io__received(s, e->buf, 0, (size_t)n);
            if (e->buf->refs > 1) { /* kept */
                sw_buf_unref(e->buf);
                e->buf = NULL;
            }
            if (!io__wants_bytes(s) || !s->eng.ep.readable) {
                return;
            }
        } else if (n == 0) {
            s->eng.ep.readable = false;
            io__eof(s);
            return;
        } else if (errno == EAGAIN) {
            s->eng.ep.readable = false;
            if (s->err != SW_OK && !s->broken) { /* a send failed, and nothing more can come */
                io__broken(s, (enum sw_err)s->err);
            }
            return;
        } else if (errno != EINTR) {
            s->eng.ep.readable = false;
            io__broken(s, sock__err(errno));
            return;
        }
    }
    io__ready(s); /* others first; the rest in the next turn */
}

static void ep_read(struct sw_stream *s)
{
    if (io__wants_bytes(s) && s->eng.ep.readable) {
        io__ready(s);
    }
}

static void ep_resume(struct sw_stream *s)
{
    if (s->eng.ep.mask == 0) { /* connected after all, see ep_connect */
        enum sw_err err = ep_register(s, MASK_READ);

        if (err != SW_OK) {
            io__broken(s, err);
            return;
        }
    }
    if (io__wants_bytes(s) && s->eng.ep.readable) {
        ep_receive(s);
    }
}

static void ep_blocked(struct sw_stream *s)
{
    enum sw_err err;

    s->eng.ep.blocked = true;
    if ((s->eng.ep.mask & EPOLLOUT) == 0) {
        s->eng.ep.mask |= EPOLLOUT;
        err = control(s->loop, EPOLL_CTL_MOD, s->fd, s->eng.ep.mask, s, TAG_STREAM);
        if (err != SW_OK) {
            io__broken(s, err);
        }
    }
}

static void ep_flush(struct sw_stream *s)
{
    for (unsigned i = 0; i < IO_FLUSHES_A_TURN; i++) {
        struct iovec iov[IO_PIECES_A_SEND];
        size_t count, bytes;
        ssize_t n;

        if (!io__wants_send(s) || s->eng.ep.blocked) {
            return;
        }
        count = io__gather(s, iov, IO_PIECES_A_SEND, &bytes);
        if (count == 1) {
            n = send(s->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};

            n = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
        }
        if (n >= 0) {
            io__sent(s, (size_t)n);
        } else if (errno == EAGAIN) {
            ep_blocked(s);
            return;
        } else if (errno != EINTR) {
            enum sw_err err = sock__err(errno);

            /* Perhaps no new edge comes: see for yourself what there is still to read. */
            s->eng.ep.readable = true;
            s->eng.ep.hup = true;
            io__send_failed(s, err);
            ep_read(s);
            return;
        }
    }
    if (io__wants_send(s)) {
        io__dirty(s);
    }
}

static void ep_stream_event(struct sw_stream *s, uint32_t mask)
{
    if (s->state == ST_CONNECTING) {
        if ((mask & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0 || s->conn_done) {
            return;
        }
        if ((mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0) {
            s->eng.ep.readable = true;
        }
        s->eng.ep.hup = (mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        io__connected(s, sock__take_error(s->fd));
        return;
    }
    if (!io__alive(s)) {
        return; /* closed earlier in this turn */
    }
    if ((mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        s->eng.ep.readable = true;
        if ((mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
            s->eng.ep.hup = true;
        }
    }
    if ((mask & EPOLLOUT) != 0 && s->eng.ep.blocked) {
        s->eng.ep.blocked = false;
        io__dirty(s);
    }
    if (s->parked) {
        return;
    }
    if (io__wants_bytes(s)) {
        if (s->eng.ep.readable && s->held.head == NULL) {
            ep_receive(s);
        }
    } else if ((mask & EPOLLERR) != 0) { /* told even while reading is stopped */
        enum sw_err err = sock__take_error(s->fd);

        if (err != SW_OK) {
            io__broken(s, err);
        }
    }
}

/* ---- listeners ------------------------------------------------------------------------------- */

static enum sw_err ep_listen(struct sw_listener *l)
{
    sock__prepare_listener(l->fd);
    return SW_OK;
}

static void ep_accept(struct sw_listener *l, bool on)
{
    enum sw_err err = control(l->loop, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, l->fd,
                              EPOLLIN | EPOLLEXCLUSIVE, l, TAG_LISTENER);

    if (on && err != SW_OK) { /* no memory: later */
        io__accept_failed(l);
    }
}

static void ep_unlisten(struct sw_listener *l)
{
    if (l->accepting) {
        (void)control(l->loop, EPOLL_CTL_DEL, l->fd, 0, l, TAG_LISTENER);
    }
    io__listener_closed(l);
}

static void ep_listener_event(struct sw_listener *l)
{
    for (unsigned i = 0; i < IO_ACCEPTS_A_TURN; i++) {
        struct sw_addr addr;
        struct sw_stream *s;
        socklen_t len = sizeof(addr.un);
        int fd;

        if (l->state != LI_OPEN || !l->accepting || !io__accept_room(l)) {
            return;
        }
        fd = accept4(l->fd, &addr.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            switch (errno) {
            case EAGAIN:
                return;
            case EMFILE:
            case ENFILE:
            case ENOMEM:
            case ENOBUFS:
                io__accept_failed(l);
                return;
            default: /* of this one connection (accept(2): also network errors): on to the next */
                continue;
            }
        }
        s = io__accept_slot(l);
        if (s == NULL) {
            sock__close(fd);
            continue;
        }
        s->fd = fd;
        addr.len = len;
        io__small_addr_set(&s->peer, &addr);
        if (ep_register(s, MASK_READ) != SW_OK) {
            sock__close(fd);
            io__accept_undo(s);
            continue;
        }
        io__accepted(l, s);
    }
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void ep_wait(struct sw_loop *loop, uint64_t deadline_ns)
{
    struct epoll_engine *e = engine(loop);
    uint64_t ns = 0;
    int n = -1;

    sw_buf_unref(sw_take(&e->buf)); /* an idle loop holds none */
    while (!sw_list_empty(&e->starved) && buf__small_left(loop)) {
        struct sw_stream *s = SW_CONTAINER(sw_list_pop_front(&e->starved), struct sw_stream, ready);

        io__ready(s);
        deadline_ns = 0;
    }
    if (deadline_ns != 0 && deadline_ns != IO_NO_DEADLINE) {
        uint64_t now = sock__clock(loop, NULL);

        ns = deadline_ns > now ? deadline_ns - now : 0;
    }
    if (!e->no_pwait2) {
        struct timespec ts = {(time_t)(ns / SW_NS_PER_S), (long)(ns % SW_NS_PER_S)};

        n = epoll_pwait2(e->epoll_fd, e->events, EVENTS_A_WAIT,
                         deadline_ns == IO_NO_DEADLINE ? NULL : &ts, NULL);
        e->no_pwait2 = n < 0 && (errno == ENOSYS || errno == EPERM);
    }
    if (e->no_pwait2) {
        uint64_t ms = SW_MIN((ns + SW_NS_PER_MS - 1) / SW_NS_PER_MS, (uint64_t)INT32_MAX);

        n = epoll_wait(e->epoll_fd, e->events, EVENTS_A_WAIT,
                       deadline_ns == IO_NO_DEADLINE ? -1 : (int)ms);
    }
    if (n < 0) {
        SW_ASSERT(errno == EINTR);
        n = 0;
    }
    e->count = n;
}

static void ep_dispatch(struct sw_loop *loop)
{
    struct epoll_engine *e = engine(loop);

    for (int i = 0; i < e->count; i++) {
        uint64_t data = e->events[i].data.u64;
        void *ptr = (void *)(uintptr_t)(data & ~(uint64_t)TAG_MASK);
        struct io_watch *w;

        switch ((enum tag)(data & TAG_MASK)) {
        case TAG_STREAM:
            ep_stream_event(ptr, e->events[i].events);
            break;
        case TAG_LISTENER:
            ep_listener_event(ptr);
            break;
        case TAG_WATCH:
            w = ptr;
            w->fn(loop, w);
            break;
        case TAG_MASK:
            SW_UNREACHABLE();
        }
    }
    e->count = 0;
}

const struct io_engine io__epoll = {
    .name = "epoll",
    .lent_max = 0,
    .init = ep_init,
    .fini = ep_fini,
    .enter = NULL,
    .wait = ep_wait,
    .dispatch = ep_dispatch,
    .wake = ep_wake,
    .clock = sock__clock,
    .random = sock__random,
    .connect = ep_connect,
    .adopt = ep_adopt,
    .read = ep_read,
    .resume = ep_resume,
    .flush = ep_flush,
    .shutdown = ep_shutdown,
    .close = ep_close,
    .addresses = sock__addresses,
    .listen = ep_listen,
    .accept = ep_accept,
    .unlisten = ep_unlisten,
    .watch = ep_watch,
};
