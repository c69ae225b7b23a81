/* unit/placement/world.h - one route with sessions, the memory store, a real loop; and visits to
 * it.
 */
#ifndef TEST_PLACEMENT_WORLD_H
#define TEST_PLACEMENT_WORLD_H

#include "placement/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define INLINE      1024
#define MAX_BYTES   8192
#define LARGE_BYTES (1u << 20)
#define ARENA_SIZE  ((size_t)(16384 + 4 * INLINE)) /* as a worker's, by the route's inline */
#define IDLE_S      100

struct world {
    struct sw_loop *loop;
    struct sw_store *store;
    struct sw_keyring keys;
    struct sw_config_app app;
    struct sw_config config;
    struct sw_config_route route;
    struct sw_routed routed;
    struct sw_budget large;
    struct sw_place_env env;
};

/* One request: its ask, and what that borrows. */
struct visit {
    struct sw_ask ask;
    struct world *w;
    struct sw_arena arena;
    struct sw_field request_fields[16], response_fields[32];
    struct sw_head request, response;
    char request_text[16384], response_text[4 * MAX_BYTES], block[ARENA_SIZE];
};

int world_up(void **state);
/* Asserts that every visit gave its large memory back. */
int world_down(void **state);
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)

/* Entities from now on: "room", the query's. */
void world_rooms(struct world *w);

/* A request up to its load. cookie NULL: none. */
enum sw_err visit_try(struct world *w, struct visit *v, const char *cookie);
void visit_open(struct world *w, struct visit *v, const char *cookie);
/* The delivery of an alarm of the record under that key. */
void visit_deliver(struct world *w, struct visit *v, const struct sw_store_key *key,
                   const struct sw_alarm *alarm);
/* Ends one that does not commit; commit does the same. */
void visit_close(struct visit *v);

/* The answer's commit; the response's fields as lines. */
enum sw_err commit_status(struct visit *v, unsigned status, const char *fields);
enum sw_err commit(struct visit *v, const char *fields);
/* The id in the cookie that the client gets; "" when it is cleared; NULL: no Set-Cookie. */
const char *cookie_of(const struct visit *v, char text[64]);
/* A visitor with that state; his id in text. */
void visitor_make(struct world *w, const char *fields, char text[64]);

/* NULL: there must be no state. Looks at the whole text, also of a large one. */
void state_is(struct world *w, const char *cookie, const char *want);
uint64_t commits_made(struct world *w);

void id_bytes(const char *id, uint8_t bytes[32]);
struct sw_store_key id_key(const char *id);
/* The record as it is kept, in memory of its own; free it. err tells whether there is one. */
struct kept {
    enum sw_err err;
    struct sw_record record;
    char block[65536];
};
struct kept *kept_get(struct world *w, const struct sw_store_key *key);
/* Commits one write; asserts that it succeeds. */
void write_raw(struct world *w, struct sw_write write, int64_t now_unix_s);

/* Faults of the next commits. */
struct fate {
    struct sw_store_fault fault;
    uint32_t times, asked;
};
struct sw_store_fault on_commit(void *arg, const struct sw_store_commit *op);

#define ID_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ID_B "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"

/* "{"much":"000..."}", so many bytes; static memory. */
const char *state_of(size_t bytes);
/* "Stateway-Set: " and that, as a field's line; static memory. */
const char *set_of(size_t bytes);

#endif
