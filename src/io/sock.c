/* io/sock.c - system calls on sockets that both real engines make alike.
 *
 * Room       io/. errno becomes an sw_err here.
 * Flow       sock__connect at sw_stream_connect; sw_listen_socket at start, by the supervisor.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/io_priv.h"

enum sw_err sock__err(int errnum)
{
    switch (errnum) {
    case 0:
        return SW_OK;
    case ECONNREFUSED:
    case ENOENT:      /* a Unix socket that is not there */
    case ENETUNREACH: /* nobody answers for the address */
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
        return SW_E_REFUSED;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        return SW_E_RESET;
    case ETIMEDOUT:
        return SW_E_TIMEOUT;
    case ECANCELED:
        return SW_E_CANCELED;
    case EMFILE:
    case ENFILE:
        return SW_E_NO_FILES;
    case ENOMEM:
    case ENOBUFS:
        return SW_E_NO_MEMORY;
    case EADDRINUSE:
        return SW_E_ADDRESS_IN_USE;
    case EACCES:
    case EPERM:
        return SW_E_PERMISSION;
    case EAFNOSUPPORT:
    case EOPNOTSUPP:
    case ENOSYS:
        return SW_E_UNSUPPORTED;
    default:
        return SW_E_SYSTEM;
    }
}

void sock__close(int fd)
{
    if (fd >= 0) {
        (void)close(fd); /* Linux closes it in any case; EINTR and EIO tell nothing we could use */
    }
}

enum sw_err sock__take_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0) {
        return SW_E_SYSTEM;
    }
    return sock__err(err);
}

static void set_nodelay(int fd)
{
    int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* Unix sockets say no */
}

/* ---- connecting ------------------------------------------------------------------------------ */

/* A Unix socket whose backlog is full says EAGAIN and cannot be waited for: try again by timer,
 * until the owner's patience ends. The address waits in a buffer held by the stream. */
#define CONNECT_RETRY_NS (2 * SW_NS_PER_MS)

static void connect_again(struct sw_timer *t, void *arg)
{
    struct sw_stream *s = arg;
    struct sw_addr addr;
    int errnum;

    SW_ASSERT(t == &s->timer);
    SW_ASSERT(s->state == ST_CONNECTING);
    SW_ASSERT(s->held.head != NULL);
    memcpy(&addr, s->held.head->ptr, sizeof(addr));
    errnum = connect(s->fd, &addr.sa, addr.len) == 0 ? 0 : errno;
    if (errnum == EAGAIN) {
        sw_timer_start(s->loop, &s->timer, s->loop->now_ns + CONNECT_RETRY_NS);
        return;
    }
    s->conn_done = true;
    s->err = (uint16_t)sock__err(errnum);
    io__ready(s);
}

SW_MUST static enum sw_err connect_later(struct sw_stream *s, const struct sw_addr *addr)
{
    struct sw_loop *loop = s->loop;
    struct io_piece *p;
    struct sw_buf *buf = sw_buf_get(loop, sizeof(*addr));

    if (buf == NULL) {
        return SW_E_NO_BUFFERS;
    }
    p = sw_pool_get(&loop->piece_pool);
    if (p == NULL) {
        sw_buf_unref(buf);
        return SW_E_NO_BUFFERS;
    }
    io__count(&loop->counters.pieces, 1);
    memcpy(buf->data, addr, sizeof(*addr));
    *p = (struct io_piece){NULL, buf, buf->data, sizeof(*addr)};
    s->held = (struct io_pieces){p, p};
    sw_timer_init(&s->timer, connect_again, s);
    sw_timer_start(loop, &s->timer, loop->now_ns + CONNECT_RETRY_NS);
    return SW_OK;
}

enum sw_err sock__connect(struct sw_stream *s, const struct sw_addr *addr, enum sock_way *ret_way)
{
    int fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int errnum;
    enum sw_err err;

    if (fd < 0) {
        return sock__err(errno);
    }
    if (addr->sa.sa_family != AF_UNIX) {
        set_nodelay(fd);
    }
    s->fd = fd;
    errnum = connect(fd, &addr->sa, addr->len) == 0 ? 0 : errno;
    switch (errnum) {
    case EINPROGRESS:
        *ret_way = SOCK_PENDING;
        return SW_OK;
    case EAGAIN:
        err = connect_later(s, addr);
        if (err != SW_OK) {
            s->fd = -1;
            sock__close(fd);
            return err;
        }
        *ret_way = SOCK_LATER;
        return SW_OK;
    default: /* done, or failed at once: told in the next turn */
        s->conn_done = true;
        s->err = (uint16_t)sock__err(errnum);
        io__ready(s);
        *ret_way = SOCK_DONE;
        return SW_OK;
    }
}

enum sw_err sock__prepare_adopted(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return SW_E_SYSTEM;
    }
    set_nodelay(fd);
    return SW_OK;
}

void sock__prepare_listener(int fd)
{
    set_nodelay(fd); /* accepted sockets inherit it */
}

void sock__addresses(struct sw_stream *s, bool local, struct sw_addr *ret_addr)
{
    socklen_t len = sizeof(ret_addr->un);

    memset(ret_addr, 0, sizeof(*ret_addr));
    if (s->fd >= 0 && (local ? getsockname(s->fd, &ret_addr->sa, &len)
                             : getpeername(s->fd, &ret_addr->sa, &len)) == 0) {
        ret_addr->len = SW_MIN(len, (socklen_t)sizeof(ret_addr->un));
    }
}

/* ---- clocks, choices ------------------------------------------------------------------------- */

uint64_t sock__clock(struct sw_loop *loop, int64_t *ret_unix_ns)
{
    struct timespec ts;

    (void)loop;
    if (ret_unix_ns != NULL) {
        clock_gettime(CLOCK_REALTIME, &ts);
        *ret_unix_ns = ts.tv_sec * (int64_t)SW_NS_PER_S + ts.tv_nsec;
    }
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

void sock__seed(struct sw_loop *loop)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) {
        seed = sock__clock(loop, NULL) ^ (uint64_t)(uintptr_t)loop; /* choices, not secrets */
    }
    sw_rng_seed(&loop->rng, seed);
}

uint64_t sock__random(struct sw_loop *loop)
{
    return sw_rng_u64(&loop->rng);
}

/* ---- listening ------------------------------------------------------------------------------- */

/* Does somebody answer on this Unix socket? */
static bool unix_answers(const struct sw_addr *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), errnum;

    if (fd < 0) {
        return true; /* not known: leave the file alone */
    }
    errnum = connect(fd, &addr->sa, addr->len) == 0 ? 0 : errno;
    sock__close(fd);
    return errnum != ECONNREFUSED;
}

static int bind_address(int fd, const struct sw_addr *addr)
{
    struct stat st;

    if (bind(fd, &addr->sa, addr->len) == 0) {
        return 0;
    }
    if (errno != EADDRINUSE || addr->sa.sa_family != AF_UNIX || addr->un.sun_path[0] == '\0') {
        return errno;
    }
    /* A socket file somebody left behind, and no other kind of file, is replaced. */
    if (lstat(addr->un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode) || unix_answers(addr) ||
        unlink(addr->un.sun_path) != 0) {
        return EADDRINUSE;
    }
    return bind(fd, &addr->sa, addr->len) == 0 ? 0 : errno;
}

enum sw_err sw_listen_socket(const struct sw_addr *addr, bool reuseport, int backlog, int *ret_fd)
{
    int on = 1, errnum, fd;

    SW_ASSERT(addr != NULL);
    SW_ASSERT(addr->len > 0);
    fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return sock__err(errno);
    }
    if (addr->sa.sa_family != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        set_nodelay(fd);
        if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
            goto fail;
        }
    }
    if (addr->sa.sa_family == AF_INET6) { /* "[::]:80" beside "0.0.0.0:80", whatever sysctl says */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    errnum = bind_address(fd, addr);
    if (errnum != 0) {
        sock__close(fd);
        return sock__err(errnum);
    }
    if (listen(fd, backlog) != 0) {
        goto fail;
    }
    *ret_fd = fd;
    return SW_OK;
fail:
    errnum = errno;
    sock__close(fd);
    return sock__err(errnum);
}
