/* serve.h - the admin room on a simulated network, with clients. */
#ifndef SW_ADMIN_SERVE_H
#define SW_ADMIN_SERVE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/sim.h"
#include "world.h"

#define CLIENT_BYTES (16u << 20)
struct client {
    struct sw_stream *stream;
    const char *send; /* NUL-terminated */
    size_t send_cut;  /* sends in pieces of so many bytes; 0: at once */
    bool deaf;        /* never reads */
    bool half_close;
    bool ended;
    enum sw_err end;
    uint64_t ended_ns;
    size_t len;
    char *own; /* of client_ask: what send points to */
    char got[CLIENT_BYTES + 1];
};

struct serve {
    struct sw_sim *sim;
    struct sw_loop *loop, *outside;
    struct sw_gateway *g;
    void *admin;
    int fd;
    struct sw_addr addr;
};

struct client *client_new(struct serve *v, const char *send);
/* The same with a text made by printf. */
struct client *client_ask(struct serve *v, const char *fmt, ...) SW_PRINTF(2, 3);
void client_free(struct client *c);

/* buffers: of the admin's loop. */
void serve_init(struct serve *v, uint64_t seed, const struct sw_sim_faults *faults,
                uint32_t buffers);
/* Also closes the world's store, as the gateway does it: before the admin room. */
void serve_fini(struct serve *v);
void run_s(struct serve *v, double s);

/* Sends text, waits, compares the beginning of the answer, or finds `has` in it. */
void expect(struct serve *v, const char *name, const char *send, size_t cut, const char *begins,
            const char *has);

#endif
