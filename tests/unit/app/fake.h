/* tests/unit/app/fake.h - a configuration by hand, and a loop to run it on: sim or epoll. */
#ifndef FAKE_H
#define FAKE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "app/life_priv.h"
#include "io/sim.h"

#define FAKE_APPS    4
#define FAKE_SERVERS 8

struct fake_config {
    struct sw_config config;
    struct sw_config_app apps[FAKE_APPS];
    struct sw_config_server servers[FAKE_APPS][FAKE_SERVERS];
    struct sw_config_route routes[1];
};

/* No app yet; timeouts as by default; one sticky route to app 0 with idle 60 s. */
void fake_config_init(struct fake_config *f);
struct sw_config_app *fake_spawned(struct fake_config *f, const char *name, uint32_t replicas);
/* Servers at 127.0.0.1:first_port, first_port + 1, ... */
struct sw_config_app *fake_servers(struct fake_config *f, const char *name, uint32_t count,
                                   uint16_t first_port);

/* A claimed and healthy instance. */
struct sw_instance *fake_instance(struct sw_apps *a, uint32_t app, uint32_t slot,
                                  uint64_t incarnation);

struct fake_world {
    struct sw_sim *sim; /* NULL: epoll, real sockets */
    struct sw_loop *loop;
};

void fake_world_init(struct fake_world *w, bool real);
void fake_world_fini(struct fake_world *w);
uint64_t fake_now(const struct fake_world *w);
/* Turns until cond says so; fails the test after limit_ns. */
typedef bool fake_cond(void *arg);
void fake_until(struct fake_world *w, fake_cond *cond, void *arg, uint64_t limit_ns);
void fake_run(struct fake_world *w, uint64_t span_ns);
/* A listening socket on 127.0.0.1; port 0: any (real only); *ret_addr: where. */
int fake_listen(struct fake_world *w, uint16_t port, struct sw_addr *ret_addr);
void fake_unlisten(struct fake_world *w, int fd);

#endif
