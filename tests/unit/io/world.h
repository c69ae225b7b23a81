/* tests/unit/io/world.h - a loop with a listener and a watchdog, for tests on each engine. */
#ifndef TEST_IO_WORLD_H
#define TEST_IO_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/io_priv.h"

enum family { FAMILY_TCP, FAMILY_TCP6, FAMILY_UNIX, FAMILY_NONE };

struct world {
    struct sw_loop *loop;
    struct sw_listener *listener;
    int fd; /* listening */
    struct sw_addr addr;
    struct sw_timer watchdog;
    struct sw_timer later;
    void (*later_fn)(struct world *w);
    bool timed_out;
    void *user;
};

/* Skips the test where the engine is refused by the kernel. opt may be NULL. */
void world_open(struct world *w, enum sw_engine engine, const struct sw_loop_options *opt,
                enum family family, sw_accept_fn *accept, void *user);
void world_listen(struct world *w, sw_accept_fn *accept);
/* Until sw_loop_stop; fails after 20 s. */
void world_run(struct world *w);
/* Calls fn in the loop after ms. */
void world_later(struct world *w, unsigned ms, void (*fn)(struct world *w));
/* world_later(.., world_stop) ends a run. */
void world_stop(struct world *w);
void world_close(struct world *w);

/* One end of a connection that records what happens to it. */
struct peer {
    struct world *w;
    struct sw_stream *s;
    unsigned connects, ends, sents, recvs;
    enum sw_err connect_err, end_err;
    uint64_t received, to_send, sent;
    bool check; /* received bytes follow the pattern */
    bool echo;
    bool kept_order;
    void (*on_recv)(struct peer *p, struct sw_buf *buf, struct sw_slice bytes);
    void (*on_end)(struct peer *p);
    void (*on_sent)(struct peer *p);
    void (*on_connected)(struct peer *p);
    struct sw_buf *keep[64];
    unsigned kept;
};

extern const struct sw_stream_events peer_events;

/* Byte at position i of every test stream. */
static inline char pattern(uint64_t i)
{
    return (char)(uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

void peer_connect(struct peer *p);
void peer_attach(struct peer *p, struct sw_stream *s);
/* Queues pattern bytes up to 64 KiB at a time until to_send is reached; call again in on_sent. */
void peer_pump(struct peer *p);
void peer_send_text(struct peer *p, const char *text);
/* Small kernel buffers, so that short writes happen. */
void peer_tiny(struct peer *p);

/* cmocka entries for both engines. */
#define ON_EPOLL(test)                                                                             \
    {                                                                                              \
#test " [epoll]", test, NULL, NULL, (void *)(uintptr_t)SW_ENGINE_EPOLL                     \
    }
#define ON_URING(test)                                                                             \
    {                                                                                              \
#test " [io_uring]", test, NULL, NULL, (void *)(uintptr_t)SW_ENGINE_URING                  \
    }
#define ON_BOTH(test) ON_EPOLL(test), ON_URING(test)
#define ENGINE(state) ((enum sw_engine)(uintptr_t) * (state))

#endif
