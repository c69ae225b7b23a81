/* io/io.h - completions: streams, listeners, timers, messages between threads, the clocks.
 *
 * Room       One loop a thread; three engines behind this header: epoll, io_uring, and sim (an
 *            in-memory network and clock for tests, io/sim.h).
 * May touch  base/. Not HTTP, not configuration.
 * Flow       listener -> stream -> recv event -> ... -> sw_stream_send -> sent event.
 *
 * Rules that hold on every engine:
 *  - No callback runs inside a call of this header: callbacks come from the loop's turn only.
 *  - Bytes arrive in a buffer that the receiver may keep (sw_buf_ref) until it releases it. Bytes
 *    are sent from buffers that the loop keeps alive until the kernel is done with them.
 *  - After sw_stream_close or sw_stream_linger no event of that stream arrives any more.
 *  - Sends made in one turn leave together (one system call a stream where possible).
 *  - All calls but sw_loop_post and sw_loop_stop belong to the loop's own thread.
 *  - Memory is allocated in sw_loop_new, by the budgets in the options; later a full budget is an
 *    error value, or a listener that waits.
 */
#ifndef SW_IO_H
#define SW_IO_H

#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>

#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"

struct sw_loop;
struct sw_stream;
struct sw_listener;

/* ---- addresses ------------------------------------------------------------------------------- */

struct sw_addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t len; /* 0: no address */
};

/* "127.0.0.1:80", "[::1]:80", "unix:/path", "localhost:80", ":80" is refused. Names are looked up
 * with getaddrinfo (blocks: start and reload only); want_name false accepts numeric only.
 * SW_E_SYNTAX, SW_E_NOT_FOUND. */
SW_MUST enum sw_err sw_addr_parse(struct sw_slice text, bool allow_names, struct sw_addr *ret_addr);
/* Text without port for Forwarded and logs ("127.0.0.1", "::1", "unix"); into buf, at most 64
 * bytes. */
struct sw_slice sw_addr_host(const struct sw_addr *addr, char buf[64]);
/* Text with port; into buf of SW_ADDR_TEXT_MAX bytes. */
#define SW_ADDR_TEXT_MAX 128
struct sw_slice sw_addr_text(const struct sw_addr *addr, char buf[SW_ADDR_TEXT_MAX]);
uint16_t sw_addr_port(const struct sw_addr *addr);
/* Of an IPv4 or IPv6 address; others stay. */
void sw_addr_set_port(struct sw_addr *addr, uint16_t port);

/* ---- the loop -------------------------------------------------------------------------------- */

enum sw_engine { SW_ENGINE_AUTO, SW_ENGINE_URING, SW_ENGINE_EPOLL };

struct sw_loop_options {
    enum sw_engine engine; /* AUTO: io_uring where the kernel lets us, else epoll, without error */
    uint32_t streams_max;  /* accepted and connected together */
    uint32_t buffers_max;  /* of SW_BUF_BYTES; io_uring lends 256 more to the kernel */
    uint32_t large_max;    /* of large_bytes: heads that span buffers, composed heads */
    uint32_t large_bytes;
    uint32_t pieces_max; /* queued sends over all streams; 0: streams_max + buffers_max + 64 */
};

#define SW_BUF_BYTES (16u * 1024u)

/* SW_E_UNSUPPORTED when a forced engine is refused by the kernel; SW_E_NO_MEMORY. */
SW_MUST enum sw_err sw_loop_new(const struct sw_loop_options *opt, struct sw_loop **ret_loop);
/* Closes what is still open, without events. On the thread that ran the loop, or after its end. */
void sw_loop_free(struct sw_loop *loop);
const char *sw_loop_engine(const struct sw_loop *loop); /* "io_uring", "epoll", "sim" */

/* Runs turns until sw_loop_stop. */
void sw_loop_run(struct sw_loop *loop);
/* From any thread, or from a callback: run returns after the turn. */
void sw_loop_stop(struct sw_loop *loop);

/* Clocks, read once a turn. Pure rooms get them as arguments. */
uint64_t sw_loop_now_ns(const struct sw_loop *loop);
int64_t sw_loop_now_unix_s(const struct sw_loop *loop);
int64_t sw_loop_now_unix_ms(const struct sw_loop *loop);
/* Read afresh: for measuring inside a turn. */
uint64_t sw_loop_clock_ns(struct sw_loop *loop);

/* Random bytes for choices made by the rooms above (balancing, jitter): seeded in sim. */
uint64_t sw_loop_random(struct sw_loop *loop);

struct sw_loop_stats {
    uint64_t turns, accepts, recvs, sends, posts;
    uint32_t streams, buffers, large, pieces; /* in use */
    uint32_t streams_max, buffers_max, large_max, pieces_max;
    uint64_t accept_waits; /* times a listener waited for a slot or a descriptor */
};
/* Any thread: relaxed reads. */
void sw_loop_stats(const struct sw_loop *loop, struct sw_loop_stats *ret_stats);

/* Asks for fn at SIGNO (blocked in every thread by the caller); main thread's loop only; not sim.
 */
typedef void sw_signal_fn(void *arg, int signo);
SW_MUST enum sw_err sw_loop_on_signal(struct sw_loop *loop, const int *signos, size_t count,
                                      sw_signal_fn *fn, void *arg);

/* ---- timers: a wheel of 1 ms; fire late, never early ----------------------------------------- */

struct sw_timer;
typedef void sw_timer_fn(struct sw_timer *timer, void *arg);
struct sw_timer {
    struct sw_link link; /* all fields are the loop's */
    uint64_t deadline_ns;
    sw_timer_fn *fn;
    void *arg;
};
static inline void sw_timer_init(struct sw_timer *t, sw_timer_fn *fn, void *arg)
{
    *t = (struct sw_timer){{NULL, NULL}, 0, fn, arg};
}
/* Starts, or moves a running one. O(1). */
void sw_timer_start(struct sw_loop *loop, struct sw_timer *t, uint64_t deadline_ns);
void sw_timer_stop(struct sw_loop *loop, struct sw_timer *t);
static inline bool sw_timer_running(const struct sw_timer *t)
{
    return sw_link_linked(&t->link);
}

/* ---- messages between threads ---------------------------------------------------------------- */

struct sw_post;
typedef void sw_post_fn(struct sw_post *post, void *arg);
struct sw_post {
    struct sw_post *next; /* the loop's while posted */
    sw_post_fn *fn;
    void *arg;
};
/* Any thread. fn(post, arg) runs on the loop's thread; the memory is the sender's until then.
 * Never fails, never blocks; wakes the loop if it sleeps. FIFO per sender. */
void sw_loop_post(struct sw_loop *loop, struct sw_post *post);

/* ---- buffers --------------------------------------------------------------------------------- */

struct sw_buf {
    char *data;
    uint32_t cap;
    uint32_t refs; /* not atomic: buffers stay on their loop */
    struct sw_loop *loop;
    struct sw_buf *next;            /* the loop's free list */
    void (*gone)(struct sw_buf *b); /* of a lent one; NULL: it is the loop's */
};

/* A buffer with one reference and at least `size` bytes; NULL: the budget is used up, or size is
 * above large_bytes. */
struct sw_buf *sw_buf_get(struct sw_loop *loop, size_t size);
static inline struct sw_buf *sw_buf_ref(struct sw_buf *b)
{
    b->refs++;
    return b;
}
/* NULL is allowed. */
void sw_buf_unref(struct sw_buf *b);
/* Memory of the caller's, to be sent like a buffer of the loop's: b, with one reference, is
 * embedded in what gone(b) gives back when the last one is dropped (on the loop's thread, or in
 * sw_loop_free). */
void sw_buf_lend(struct sw_buf *b, struct sw_loop *loop, char *data, uint32_t cap,
                 void (*gone)(struct sw_buf *b));

/* ---- streams --------------------------------------------------------------------------------- */

struct sw_stream_events {
    /* Outcome of sw_stream_connect; after an error the stream is still the caller's to close. */
    void (*connected)(struct sw_stream *s, void *arg, enum sw_err err);
    /* Bytes arrived (len > 0), inside buf. To keep them: sw_buf_ref(buf). */
    void (*recv)(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes);
    /* SW_E_CLOSED: the peer sends no more (it may still read). Anything else: broken both ways.
     * At most once of each; the stream is still the caller's to close. */
    void (*end)(struct sw_stream *s, void *arg, enum sw_err err);
    /* All that was queued has been handed to the kernel. May be NULL. */
    void (*sent)(struct sw_stream *s, void *arg);
};

/* Starts to connect; `connected` follows. SW_E_NO_FILES, SW_E_LIMIT (no slot). A fresh stream does
 * not read before sw_stream_read_start. */
SW_MUST enum sw_err sw_stream_connect(struct sw_loop *loop, const struct sw_addr *addr,
                                      const struct sw_stream_events *events, void *arg,
                                      struct sw_stream **ret_stream);
/* Takes over a connected socket (SOCK_STREAM, or SOCK_SEQPACKET: one recv event a record), even on
 * error. */
SW_MUST enum sw_err sw_stream_adopt(struct sw_loop *loop, int fd,
                                    const struct sw_stream_events *events, void *arg,
                                    struct sw_stream **ret_stream);
/* From now on events go there: hands a stream from one owner to the next (idle pools). */
void sw_stream_attach(struct sw_stream *s, const struct sw_stream_events *events, void *arg);

/* Reading is off until started. stop: at most the bytes already on their way still arrive (an
 * engine may deliver up to a few buffers after stop; it keeps what it can). `end` with an error is
 * still delivered while stopped; end with SW_E_CLOSED may wait until reading starts. */
void sw_stream_read_start(struct sw_stream *s);
void sw_stream_read_stop(struct sw_stream *s);
bool sw_stream_reading(const struct sw_stream *s);

/* Queues bytes. buf holds them (a reference is taken) or is NULL for bytes that live for ever.
 * SW_E_NO_BUFFERS: no piece left in the budget; nothing was queued, close the stream. On a broken
 * stream the bytes vanish: `end` tells, or has told.
 * Watch sw_stream_queued and stop reading the other side above your high water. */
SW_MUST enum sw_err sw_stream_send(struct sw_stream *s, struct sw_buf *buf, struct sw_slice bytes);
size_t sw_stream_queued(const struct sw_stream *s); /* bytes not yet taken by the kernel */
/* After the queue: no more will be sent (FIN); reading goes on. */
void sw_stream_shutdown(struct sw_stream *s);

/* Ends at once: the queue is dropped. The handle is dead after this. */
void sw_stream_close(struct sw_stream *s);
/* Ends politely: sends the queue, half-closes, reads and discards until the peer closes or the
 * deadline is there (so that the last answer is not lost to a reset). The handle is dead; the slot
 * counts until the end. Closes at once what is broken or still connecting. */
void sw_stream_linger(struct sw_stream *s, uint64_t deadline_ns);

/* Both point into the loop, valid until the same function is called again for any of its streams
 * (a slot keeps addresses small); len 0: unknown. Of a Unix socket only the family is known. */
const struct sw_addr *sw_stream_peer(const struct sw_stream *s);
/* The local address; asked from the kernel once. */
const struct sw_addr *sw_stream_local(struct sw_stream *s);
struct sw_loop *sw_stream_loop(const struct sw_stream *s);

/* ---- listeners ------------------------------------------------------------------------------- */

/* A new connection; attach events and start reading, or close it. */
typedef void sw_accept_fn(struct sw_stream *s, void *arg);
/* Accepts on a listening socket (borrowed, non-blocking). Waits by itself while there is no slot or
 * no descriptor. TCP_NODELAY is set on accepted and connected streams. */
SW_MUST enum sw_err sw_listener_open(struct sw_loop *loop, int fd, sw_accept_fn *fn, void *arg,
                                     struct sw_listener **ret_listener);
void sw_listener_close(struct sw_listener *l);

/* Binds and listens: SO_REUSEPORT where asked; a stale Unix socket is replaced when nobody answers
 * on it. Used by the supervisor, which polls no loop. */
SW_MUST enum sw_err sw_listen_socket(const struct sw_addr *addr, bool reuseport, int backlog,
                                     int *ret_fd);

#endif
