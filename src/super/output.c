/* super/output.c - what apps print: cut into lines, named, passed on; never in the way. */
#include "super/super_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES   ((size_t)16 * 1024)   /* of one pipe in one turn */
#define FINISH_BYTES ((size_t)1024 * 1024) /* a pipe of an ended app holds no more */

/* O_NONBLOCK belongs to the file description, which others share with us (the shell, for one). So
 * pipes and terminals are opened once more. What cannot be is asked before each write. */
void sw_super__sink_open(struct sw_super_sink *s, int fd, const char *what)
{
    char path[32];
    struct stat st;
    int again = -1;

    s->fd = fd;
    s->own_fd = false;
    s->is_socket = false;
    s->what = what;
    s->len = 0;
    s->progress_ns = 0;
    s->dropped = 0;
    if (fstat(fd, &st) != 0) {
        return;
    }
    s->is_socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    if (again >= 0) {
        s->fd = again;
        s->own_fd = true;
    }
}

void sw_super__sink_close(struct sw_super_sink *s)
{
    if (s->own_fd) {
        close(s->fd);
        s->own_fd = false;
    }
    s->fd = -1;
}

/* Bytes taken, 0: not now, -1: nobody will ever read them. */
static ssize_t sink_write(const struct sw_super_sink *s, const char *ptr, size_t len)
{
    ssize_t n;

    if (s->is_socket) {
        n = send(s->fd, ptr, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        if (!s->own_fd) {
            struct pollfd p = {.fd = s->fd, .events = POLLOUT};

            if (poll(&p, 1, 0) != 1 || (p.revents & POLLOUT) == 0) {
                return 0;
            }
        }
        n = write(s->fd, ptr, len);
    }
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    return n;
}

/* How many bytes of whole lines fit in one atomic write. */
static size_t sink_piece(const struct sw_super_sink *s)
{
    const char *end;

    if (s->len <= PIPE_BUF) {
        return s->len;
    }
    end = (const char *)memrchr(s->buf, '\n', PIPE_BUF);
    return end == NULL ? PIPE_BUF : (size_t)(end - s->buf) + 1; /* NULL: a line that was cut */
}

static void sink_drop_note(struct sw_super_sink *s)
{
    int n = snprintf(s->buf, PIPE_BUF,
                     "supervisor | %llu lines of apps were lost: nobody read our %s\n",
                     (unsigned long long)s->dropped, s->what);

    SW_ASSERT(n > 0 && n < PIPE_BUF);
    s->len = (size_t)n;
    s->dropped = 0;
}

void sw_super__sink_flush(struct sw_super_sink *s, uint64_t now_ns)
{
    size_t sent = 0;

    for (;;) {
        size_t piece;
        ssize_t n;

        if (s->len == 0 && s->dropped > 0) {
            sink_drop_note(s);
        }
        if (s->len == 0) {
            s->progress_ns = now_ns;
            return;
        }
        piece = sink_piece(s);
        n = sink_write(s, s->buf, piece);
        if (n == 0) {
            return;
        }
        s->progress_ns = now_ns;
        if (n < 0) {
            s->len = 0; /* the reader is gone for good: lines go nowhere */
            s->dropped = 0;
            return;
        }
        s->len -= (size_t)n;
        memmove(s->buf, s->buf + n, s->len);
        sent += (size_t)n;
        if (sent >= SW_SUPER_SINK_BYTES) {
            return; /* others wait for their turn */
        }
    }
}

static bool sink_full(const struct sw_super_sink *s)
{
    return SW_SUPER_SINK_BYTES - s->len < 2 * READ_BYTES;
}

bool sw_super__sink_holds(const struct sw_super_sink *s, uint64_t now_ns)
{
    return sink_full(s) && now_ns - s->progress_ns < SW_SUPER_STALL_NS;
}

static void sink_line(struct sw_super_sink *s, const char *name, const char *text, size_t len)
{
    size_t name_len = strlen(name);
    size_t need = name_len + 3 + len + 1;

    SW_ASSERT(need <= PIPE_BUF);
    if (SW_SUPER_SINK_BYTES - s->len < need) {
        s->dropped++;
        return;
    }
    memcpy(s->buf + s->len, name, name_len);
    memcpy(s->buf + s->len + name_len, " | ", 3);
    if (len > 0) {
        memcpy(s->buf + s->len + name_len + 3, text, len);
    }
    s->buf[s->len + need - 1] = '\n';
    s->len += need;
}

static void pipe_emit(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink)
{
    sink_line(sink, name, p->line, p->len);
    p->len = 0;
}

/* A line longer than the limit becomes several. */
static void pipe_feed(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink,
                      struct sw_slice in)
{
    while (in.len > 0) {
        size_t end = sw_slice_find(in, '\n');
        size_t take = SW_MIN(end, sizeof(p->line) - p->len);

        memcpy(p->line + p->len, in.ptr, take);
        p->len += take;
        if (take == end && end < in.len) {
            take++; /* the end of the line itself */
            pipe_emit(p, name, sink);
        } else if (p->len == sizeof(p->line)) {
            pipe_emit(p, name, sink);
        }
        in = sw_slice_tail(in, take);
    }
}

/* Bytes read; 0: end, -1: nothing now. */
static ssize_t pipe_take(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink)
{
    char buf[READ_BYTES];
    ssize_t n = read(p->fd, buf, sizeof(buf));

    if (n > 0) {
        pipe_feed(p, name, sink, sw_slice_of(buf, (size_t)n));
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return 0;
    }
    return n;
}

bool sw_super__pipe_read(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink,
                         uint64_t now_ns)
{
    ssize_t n;

    SW_ASSERT(p->fd >= 0);
    n = pipe_take(p, name, sink);
    sw_super__sink_flush(sink, now_ns);
    return n != 0;
}

void sw_super__pipe_finish(struct sw_super_pipe *p, const char *name, struct sw_super_sink *sink,
                           uint64_t now_ns)
{
    size_t total = 0;

    if (p->fd < 0) {
        return;
    }
    while (total < FINISH_BYTES) {
        ssize_t n = pipe_take(p, name, sink);

        if (n <= 0) {
            break;
        }
        total += (size_t)n;
        sw_super__sink_flush(sink, now_ns);
    }
    if (p->len > 0) {
        pipe_emit(p, name, sink);
    }
    sw_super__sink_flush(sink, now_ns);
    close(p->fd);
    p->fd = -1;
}
