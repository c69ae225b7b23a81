/* tests/unit/store/contract.h - what every store must do, and the small world its tests run in. */
#ifndef SW_TEST_CONTRACT_H
#define SW_TEST_CONTRACT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/io.h"
#include "store/store.h"

/* A store under test. Options come from the test; path is filled in by the world. */
struct world {
    const struct maker *maker;
    struct sw_store *store;
    struct sw_loop *loop;
    char folder[64]; /* "": none was made */
    struct sw_store_options opt;
    struct sw_arena arena;
    char *block;
    size_t done; /* commits answered */
    size_t expect;
};
struct maker {
    const char *name;
    bool durable;
    enum sw_err (*open)(struct world *w, const char **ret_why);
};
extern const struct maker maker_lmdb, maker_mem;

#define NOW INT64_C(1760000000)

struct sw_loop *loop_new(void);
void world_init(struct world *w, const struct maker *maker, const struct sw_store_options *opt);
void world_fini(struct world *w);
/* Closes and opens the store again. */
void world_reopen(struct world *w);
/* The path of a file in the store's folder. */
const char *world_file(const struct world *w, const char *name);

struct sw_store_key key_of(uint64_t n);
/* Begins a commit; world_wait waits for all that were begun. */
void commit_begin(struct world *w, struct sw_store_commit *op);
void world_wait(struct world *w);
/* One commit, waited for. */
enum sw_err commit(struct world *w, struct sw_store_commit *op);

struct sw_write put_of(uint64_t key, struct sw_slice value);
struct sw_write put_at(uint64_t key, struct sw_slice value, struct sw_version expected);
/* One write, waited for. */
enum sw_err write_one(struct world *w, struct sw_write write, int64_t now,
                      struct sw_version *ret_version);
/* The arena is emptied first: a record lives until the next load. */
enum sw_err load(struct world *w, uint64_t key, int64_t now, struct sw_record *ret_record);
void assert_value(struct world *w, uint64_t key, int64_t now, struct sw_slice value);

struct sw_write delete_of(uint64_t key, int64_t expires);
struct sw_write cutoff_of(struct sw_slice subject, int64_t not_before_unix_ms, int64_t expires);

/* The keys that a scan visits, in its order. */
struct visited {
    struct sw_store_key keys[512];
    size_t count;
};
/* All of them, of one subject when that is not empty; at most limit. */
void visit(struct world *w, struct sw_slice subject, const struct sw_store_key *after, size_t limit,
           int64_t now, struct visited *ret);
/* What is due, the earliest first. */
void visit_due(struct world *w, int64_t now_ms, size_t limit, struct visited *ret);
/* The file behind the store is whole, by the command that checks it; open or not. */
void assert_whole(struct world *w);
bool is_key(const struct sw_store_key *key, uint64_t n);

/* The whole suite: contract.c and contract_index.c. */
int contract_run(const struct maker *maker);
int contract_index_run(const struct maker *maker);
/* What a suite's tests begin and end with. */
extern const struct maker *suite_maker;
int suite_setup(void **state);
int suite_teardown(void **state);

#endif
