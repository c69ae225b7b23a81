/* io/io_priv.h - what the files of io/ share: the loop, its slots, and the table an engine is.
 *
 * Room       io/. Nobody else includes this, but tests of this room.
 * Flow       One turn of a loop (io__turn in loop.c):
 *
 *              engine->wait      sleeps until an event, a wake, or the deadline; calls nobody back
 *              engine->dispatch  hands over what wait found, through the io__ functions below
 *              ready             streams with something left from before: a connect that was done
 *                                at once, bytes held while reading was stopped, an unfinished read
 *              posts, timers
 *              flush             engine->flush for each stream marked dirty in this turn
 *              reap              slots of dead streams and listeners return to their pools
 *
 * Common code keeps all queues, timers, buffers and slots; an engine moves bytes and knows
 * readiness.
 *
 * Nothing is freed under its caller: a closed stream keeps its slot, in state ST_DEAD, until the
 * end of the turn, and in ST_CLOSING as long as the engine has operations in flight. So an event
 * found earlier in the turn meets a dead slot, never a new owner's: that is why no generation
 * numbers are needed. After every callback an engine asks io__alive before it goes on with a
 * stream.
 */
#ifndef SW_IO_PRIV_H
#define SW_IO_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "base/rng.h"
#include "io/io.h"

#define IO_LOOP_MAGIC     0x4c4f4f50u
#define IO_STREAM_MAGIC   0x5354524du
#define IO_LISTENER_MAGIC 0x4c49534eu

/* Limits of one turn: nobody starves his neighbours. */
#define IO_READS_A_TURN   4u  /* of SW_BUF_BYTES, a stream */
#define IO_ACCEPTS_A_TURN 64u /* a listener */
#define IO_FLUSHES_A_TURN 16u /* system calls, a stream */
#define IO_PIECES_A_SEND  64u /* gathered into one system call */
#define IO_LISTENERS_MAX  64u
/* After EMFILE and its like a listener tries again by timer. */
#define IO_ACCEPT_RETRY_NS (50 * SW_NS_PER_MS)

#define IO_NO_DEADLINE UINT64_MAX

struct io_engine;

/* ---- addresses, small ------------------------------------------------------------------------ */

/* An address in 28 bytes: a Unix socket keeps its family only. */
union io_small_addr {
    sa_family_t family; /* AF_UNSPEC: not known (yet) */
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

void io__small_addr_set(union io_small_addr *small, const struct sw_addr *addr);
void io__small_addr_get(const union io_small_addr *small, struct sw_addr *ret_addr);

/* ---- sends ----------------------------------------------------------------------------------- */

/* Bytes to send, or received bytes held while reading is stopped. */
struct io_piece {
    struct io_piece *next;
    struct sw_buf *buf; /* referenced; NULL: the bytes live for ever */
    const char *ptr;
    size_t len;
};

struct io_pieces {
    struct io_piece *head, *tail;
};

/* ---- streams --------------------------------------------------------------------------------- */

enum st_state {
    ST_FREE, /* in the pool */
    ST_CONNECTING,
    ST_OPEN,
    ST_LINGER,  /* the handle is dead; the loop sends what is queued, half-closes and drains */
    ST_CLOSING, /* the engine still has operations in flight */
    ST_DEAD,    /* waits for the end of the turn */
    ST_STATE_COUNT,
};

/* What an engine remembers of a stream; zeroed when the slot is taken. */
union io_stream_engine {
    struct {
        uint32_t mask;     /* as registered */
        bool readable : 1; /* an edge was seen, and not all was read since */
        bool hup : 1;      /* RDHUP, HUP or ERR was seen: read on until EOF or EAGAIN */
        bool blocked : 1;  /* the kernel takes no more bytes until EPOLLOUT */
        bool records : 1;  /* SOCK_SEQPACKET: a short read ends a record, not the queue */
    } ep;
    struct {
        uint32_t ops;          /* operations in flight: the slot is kept until 0 */
        bool recv_armed : 1;   /* a recv is with the kernel */
        bool recv_multi : 1;   /* and it is a multishot */
        bool recv_cancel : 1;  /* and its cancellation is there, too */
        bool poll_armed : 1;   /* for errors while nothing is read */
        bool conn_wait : 1;    /* the poll for a connect is to be armed */
        bool close_cancel : 1; /* all is being cancelled */
        bool fresh : 1;        /* nothing can have arrived yet: poll first */
        uint8_t singles;       /* above 0: a flood; so many short reads till the next multishot */
    } ur;
    struct {
        void *peer;
        uint64_t word[2];
    } sim;
};

struct sw_stream {
    uint32_t magic;
    uint8_t state;        /* enum st_state */
    bool reading : 1;     /* wanted by the owner (or by linger) */
    bool eof : 1;         /* the engine saw the peer's end */
    bool eof_told : 1;    /* the owner knows */
    bool broken : 1;      /* no byte goes either way any more */
    bool broken_told : 1; /* the owner knows */
    bool shut_want : 1;   /* FIN after the queue */
    bool shut_done : 1;
    bool parked : 1;    /* accepted above streams_max: waits to be announced */
    bool sending : 1;   /* the engine's: the head of the queue is in flight, its pieces stay */
    bool conn_done : 1; /* the outcome of connect is known (err), but not told */
    uint16_t err;       /* enum sw_err: of broken; or of a failed send, told when all is read */
    int fd;             /* -1: none */
    struct sw_loop *loop;
    const struct sw_stream_events *events;
    void *arg;
    struct sw_link link;    /* in loop->live, or loop->dead */
    struct sw_link dirty;   /* in loop->dirty: to be flushed at the end of the turn */
    struct sw_link ready;   /* in loop->ready, or the engine's list of starved streams */
    struct io_pieces queue; /* to send */
    struct io_pieces held;  /* received while reading was stopped */
    size_t queued;          /* bytes in queue */
    struct sw_timer timer;  /* linger's deadline; retry of a connect */
    union io_small_addr peer, local;
    union io_stream_engine eng;
};

_Static_assert(sizeof(struct sw_stream) <= 256, "an idle connection costs its slot");

/* The slot belongs to an open or lingering stream: events may still be handed over. */
static inline bool io__alive(const struct sw_stream *s)
{
    return s->state == ST_OPEN || s->state == ST_LINGER;
}

/* Should the engine read? */
static inline bool io__wants_bytes(const struct sw_stream *s)
{
    return io__alive(s) && s->reading && !s->eof && !s->broken;
}

/* Should the engine send? */
static inline bool io__wants_send(const struct sw_stream *s)
{
    return io__alive(s) && s->queue.head != NULL && !s->broken && s->err == SW_OK;
}

/* ---- listeners ------------------------------------------------------------------------------- */

enum li_state { LI_FREE, LI_OPEN, LI_CLOSING, LI_DEAD };

struct sw_listener {
    uint32_t magic;
    uint8_t state;      /* enum li_state */
    bool accepting : 1; /* what engine->accept was told last */
    bool armed : 1;     /* uring: the multishot accept is with the kernel */
    bool cancel : 1;    /* uring: and its cancellation too */
    int fd;             /* borrowed */
    uint32_t ops;       /* engine operations in flight */
    struct sw_loop *loop;
    sw_accept_fn *fn;
    void *arg;
    struct sw_link link; /* in loop->listeners, or loop->listeners_dead */
    struct sw_link wait; /* in loop->waiting: for a slot */
    struct sw_link eng;  /* the engine's */
    struct sw_timer timer;
    void *engine_data;
};

/* ---- other descriptors: signals, wake -------------------------------------------------------- */

struct io_watch {
    _Alignas(16) int fd; /* engines keep a tag in the low bits of its address */
    void (*fn)(struct sw_loop *loop, struct io_watch *w); /* readable (an edge) */
    bool armed;
    struct sw_link link; /* the engine's */
};

/* ---- the timer wheel ------------------------------------------------------------------------- */

#define WHEEL_BITS   6u
#define WHEEL_SLOTS  (1u << WHEEL_BITS)
#define WHEEL_LEVELS 8u /* 2^48 ms: more than 2^64 ns, so that no deadline is out of range */

struct io_wheel {
    uint64_t tick;                  /* ms; all timers due up to here are in `due` or have run */
    uint64_t pending[WHEEL_LEVELS]; /* a bit a slot; a set bit may lie (stopped timers), a clear
                                       one never does */
    struct sw_link due;             /* to run in the next turn */
    struct sw_link slot[WHEEL_LEVELS][WHEEL_SLOTS];
};

void wheel__init(struct io_wheel *w, uint64_t now_ns);
/* When to wake up: no timer is due before; IO_NO_DEADLINE: none is running. 0: at once. */
uint64_t wheel__next_ns(struct io_wheel *w);
/* Runs what is due at now_ns. */
void wheel__run(struct io_wheel *w, uint64_t now_ns);

/* ---- the loop -------------------------------------------------------------------------------- */

struct io_counters {
    _Atomic uint64_t turns, accepts, recvs, sends, posts, accept_waits;
    _Atomic uint32_t streams, buffers, large, pieces;
};

/* One writer, the loop's thread: no locked instruction is needed. */
#define io__count(c, n)                                                                            \
    atomic_store_explicit((c), atomic_load_explicit((c), memory_order_relaxed) + (n),              \
                          memory_order_relaxed)
#define io__gauge(c) atomic_load_explicit((c), memory_order_relaxed)

struct io_bufs {
    char *data;          /* count * bytes of address space */
    struct sw_buf *bufs; /* count */
    uint32_t bytes;
    uint32_t count;
    uint32_t touched; /* bufs[touched..] were never used */
    struct sw_buf *free_list;
};

struct sw_loop {
    uint32_t magic;
    bool entered; /* sw_loop_run was called: `thread` is known */
    bool freeing; /* sw_loop_free: no callbacks */
    const struct io_engine *engine;
    void *engine_data;
    struct sw_loop_options opt;
    uint64_t now_ns;
    int64_t now_unix_ns;
    struct sw_rng rng;
    pthread_t thread;

    struct sw_pool stream_pool, piece_pool, listener_pool;
    struct io_bufs small, large;
    uint32_t ring_bufs; /* small buffers lent to the kernel: not counted as used */
    uint32_t open;      /* streams whose slot counts against streams_max */

    struct sw_link live, dirty, ready, dead;
    struct sw_link listeners, waiting, parked, listeners_dead;
    struct io_wheel wheel;
    struct sw_addr peer_scratch, local_scratch; /* what sw_stream_peer and _local return */
    struct io_counters counters;

    struct io_watch signals;
    sw_signal_fn *signal_fn;
    void *signal_arg;

    /* Other threads write here: on cache lines of its own. */
    _Alignas(64) _Atomic(struct sw_post *) posts; /* last posted first */
    _Atomic bool sleeping;
    _Atomic bool stop;
    char pad_[64 - sizeof(void *) - 2];
};

/* A loop on any engine; sim.c calls this with its own table. engine_data is handed to init. */
SW_MUST enum sw_err io__loop_new(const struct sw_loop_options *opt, const struct io_engine *engine,
                                 void *engine_data, struct sw_loop **ret_loop);
/* One turn; sleeps at most until deadline_ns (0: not at all, IO_NO_DEADLINE: as long as it takes).
 */
void io__turn(struct sw_loop *loop, uint64_t deadline_ns);
/* Nothing is left to do without an event from outside or a timer. */
bool io__idle(const struct sw_loop *loop);

/* ---- the engine ------------------------------------------------------------------------------ */

/* All run on the loop's thread and inside its turn unless said otherwise. "Later" means: from
 * dispatch or flush of the same or a later turn. Calls marked (early) may also come before the
 * first turn, from the thread that made the loop. */
struct io_engine {
    const char *name;
    uint32_t lent_max; /* small buffers lent to the kernel at most, on top of buffers_max */

    /* (early) loop->opt and pools are ready; loop->engine_data is what io__loop_new got. On failure
     * everything is undone. SW_E_UNSUPPORTED: try another engine. */
    enum sw_err (*init)(struct sw_loop *loop);
    /* All streams and listeners are gone (closed by the common code before). Any thread that may
     * free. */
    void (*fini)(struct sw_loop *loop);
    /* sw_loop_run begins on this thread; may be NULL. */
    void (*enter)(struct sw_loop *loop);

    /* Sleeps until something happens, wake is called, or clock reaches deadline_ns (0: only looks).
     * Delivers nothing. */
    void (*wait)(struct sw_loop *loop, uint64_t deadline_ns);
    /* Delivers what wait found. */
    void (*dispatch)(struct sw_loop *loop);
    /* Any thread. */
    void (*wake)(struct sw_loop *loop);
    /* (early) Monotonic and wall clock. ret_unix_ns may be NULL. */
    uint64_t (*clock)(struct sw_loop *loop, int64_t *ret_unix_ns);
    /* (early) */
    uint64_t (*random)(struct sw_loop *loop);

    /* (early) Starts to connect; s->peer is set. io__connected later, never from inside. */
    enum sw_err (*connect)(struct sw_stream *s, const struct sw_addr *addr);
    /* (early) Takes over fd, connected; s->fd is set on success, fd is still the caller's on error.
     * NULL: not possible on this engine. */
    enum sw_err (*adopt)(struct sw_stream *s, int fd);
    /* (early) io__wants_bytes(s) may have changed. Delivers nothing now: marks ready or dirty. */
    void (*read)(struct sw_stream *s);
    /* From the ready list: go on reading, if there is anything known to be read. */
    void (*resume)(struct sw_stream *s);
    /* From the dirty list: send the queue (io__sent, io__send_failed now or later), and whatever
     * the engine marked it dirty for. Also called in ST_CLOSING. */
    void (*flush)(struct sw_stream *s);
    /* The queue is empty: send FIN. */
    void (*shutdown)(struct sw_stream *s);
    /* (early) In ST_CLOSING now. io__closed now or later, when no operation is in flight. */
    void (*close)(struct sw_stream *s);
    /* (early) Addresses as the engine knows them; len 0: unknown. */
    void (*addresses)(struct sw_stream *s, bool local, struct sw_addr *ret_addr);

    /* (early) A listener begins (l->fd is set), and starts or stops accepting. */
    enum sw_err (*listen)(struct sw_listener *l);
    void (*accept)(struct sw_listener *l, bool on);
    /* (early) In LI_CLOSING now. io__listener_closed now or later. */
    void (*unlisten)(struct sw_listener *l);

    /* (early) Calls w->fn when w->fd becomes readable. NULL: not possible. */
    enum sw_err (*watch)(struct sw_loop *loop, struct io_watch *w);
};

extern const struct io_engine io__epoll, io__uring;

/* ---- what engines call ----------------------------------------------------------------------- */

/* Mark for the end of this turn, or for the ready phase of the next (or this) one. */
static inline void io__dirty(struct sw_stream *s)
{
    if (!sw_link_linked(&s->dirty)) {
        sw_list_push_back(&s->loop->dirty, &s->dirty);
    }
}
static inline void io__ready(struct sw_stream *s)
{
    if (!sw_link_linked(&s->ready)) {
        sw_list_push_back(&s->loop->ready, &s->ready);
    }
}

/* The outcome of connect. After an error the engine may still hold a descriptor until close. */
void io__connected(struct sw_stream *s, enum sw_err err);
/* len > 0 bytes at buf->data + off. The engine keeps its reference; when buf->refs is above 1
 * afterwards somebody kept the buffer. Bytes for a stopped reader are held. */
void io__received(struct sw_stream *s, struct sw_buf *buf, size_t off, size_t len);
/* The peer sends no more. */
void io__eof(struct sw_stream *s);
/* Broken both ways. */
void io__broken(struct sw_stream *s, enum sw_err err);
/* A send failed. What was received before may still be read: the owner learns of the failure
 * behind it (an app that answers early and closes). */
void io__send_failed(struct sw_stream *s, enum sw_err err);
/* The kernel took the first n bytes of the queue. */
void io__sent(struct sw_stream *s, size_t n);
/* No operation of s is in flight any more, its descriptor is closed. */
void io__closed(struct sw_stream *s);

/* Is there a slot for one more accepted stream? If not, the listener now waits for one, and
 * engine->accept(l, false) was called. */
bool io__accept_room(struct sw_listener *l);
/* A slot for an accepted stream, ST_OPEN; NULL: even the reserve is used up, drop the connection.
 * Then the engine fills in fd, peer, eng and calls io__accepted, or io__accept_undo. */
struct sw_stream *io__accept_slot(struct sw_listener *l);
void io__accepted(struct sw_listener *l, struct sw_stream *s);
void io__accept_undo(struct sw_stream *s);
/* Accepting failed for want of descriptors or memory: tries again by timer. */
void io__accept_failed(struct sw_listener *l);
void io__listener_closed(struct sw_listener *l);

/* Fills at most max entries with the head of the queue; *ret_bytes is their sum. */
struct iovec;
size_t io__gather(const struct sw_stream *s, struct iovec *iov, size_t max, size_t *ret_bytes);

/* May a small buffer be had? For streams that starve. */
bool buf__small_left(const struct sw_loop *loop);
/* A small buffer to lend to the kernel, not counted as used; NULL: none, or the budget is used up.
 * buf__lent_back when it comes back with bytes: from then on it counts until its last unref. */
struct sw_buf *buf__lend(struct sw_loop *loop);
void buf__lent_back(struct sw_loop *loop);

/* ---- inside the common code ------------------------------------------------------------------ */

SW_MUST enum sw_err buf__init(struct sw_loop *loop);
void buf__fini(struct sw_loop *loop);
void stream__reap(struct sw_loop *loop);
void stream__run_ready(struct sw_loop *loop);
void stream__flush(struct sw_loop *loop);
void stream__free_all(struct sw_loop *loop);
void stream__unpark(struct sw_loop *loop);
void stream__drop_parked(struct sw_listener *l);
void listener__resume(struct sw_loop *loop);
void post__run(struct sw_loop *loop);
bool post__pending(struct sw_loop *loop);
/* Ends the sleep of a loop that sleeps; any thread. */
void post__wake(struct sw_loop *loop);

/* ---- sockets, for the engines that have them (sock.c) ---------------------------------------- */

enum sw_err sock__err(int errnum);
/* SO_ERROR, taken. */
enum sw_err sock__take_error(int fd);
/* A non-blocking socket on its way, in s->fd. The outcome is told from the ready list, but for
 * SOCK_PENDING, where the engine waits for EPOLLOUT and asks sock__take_error. */
enum sock_way { SOCK_PENDING, SOCK_LATER, SOCK_DONE };
SW_MUST enum sw_err sock__connect(struct sw_stream *s, const struct sw_addr *addr,
                                  enum sock_way *ret_way);
void sock__addresses(struct sw_stream *s, bool local, struct sw_addr *ret_addr);
SW_MUST enum sw_err sock__prepare_adopted(int fd);
void sock__prepare_listener(int fd);
void sock__close(int fd);
uint64_t sock__clock(struct sw_loop *loop, int64_t *ret_unix_ns);
void sock__seed(struct sw_loop *loop);
uint64_t sock__random(struct sw_loop *loop);

static inline void io__check(const struct sw_loop *loop)
{
    SW_ASSERT(loop != NULL);
    SW_ASSERT(loop->magic == IO_LOOP_MAGIC);
}

/* A handle its owner may still use. */
static inline void io__check_stream(const struct sw_stream *s)
{
    SW_ASSERT(s != NULL);
    SW_ASSERT(s->magic == IO_STREAM_MAGIC);
    SW_ASSERT(s->state == ST_CONNECTING || s->state == ST_OPEN);
}

#endif
