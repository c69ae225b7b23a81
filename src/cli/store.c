/* cli/store.c - `stateway store`: the files behind a store, looked at, checked, copied, made small.
 *
 * Works on the files themselves, not through the admin API; beside a running gateway too (but
 * compact).
 */
#include "cli/cli_priv.h"

#include "store/store.h"

#include <inttypes.h>
#include <time.h>

#define STORE_DEFAULT "./state" /* as `run` without a file has it */

/* ---- which store ----------------------------------------------------------------------------- */

struct kind {
    struct sw_slice prefix;
    enum sw_err (*check)(struct sw_slice path, bool quick,
                         void (*complain)(void *arg, const char *text), void *arg,
                         struct sw_store_checked *ret_checked, const char **ret_why);
    enum sw_err (*backup)(struct sw_slice path, struct sw_slice to, const char **ret_why);
    enum sw_err (*compact)(struct sw_slice path, uint64_t *ret_before_bytes,
                           uint64_t *ret_after_bytes, const char **ret_why);
    const char *restore; /* how a backup is put back */
    bool log;            /* what is not live is old, and not free */
};
static const struct kind kinds[] = {
    {SW_S("lmdb:"), sw_store_lmdb_check, sw_store_lmdb_backup, sw_store_lmdb_compact,
     "put data.mdb in the place of the store's", false},
    {SW_S("journal:"), sw_store_journal_check, sw_store_journal_backup, sw_store_journal_compact,
     "put the copy's *.journal files in the place of all of the store's", true},
};

/* A store that is worked on. */
struct place {
    const struct kind *kind;
    struct sw_slice path;
    char room[4096];
};

static int no_file(const struct sw_cli_args *a)
{
    return sw_cli__usage_error(a->command, "a store in memory has no file");
}

/* That of --store, else the configuration's. */
static int store_find(const struct sw_cli_args *a, struct place *ret_place)
{
    struct sw_cli_args file_args = {.command = a->command};
    struct sw_slice text = SW_S("lmdb:" STORE_DEFAULT);
    struct sw_loaded l = {.config = NULL};
    int n, code;

    if (sw_cli__has(a, FLAG_STORE)) {
        text = sw_slice_cstr(a->values[FLAG_STORE]);
    }
    if (sw_cli__has(a, FLAG_CONFIG) && !sw_cli__has(a, FLAG_STORE)) {
        file_args.values[FLAG_CONFIG] = a->values[FLAG_CONFIG];
        code = sw_cli__load(&file_args, &l);
        if (code != SW_EXIT_OK) {
            return code;
        }
        n = snprintf(ret_place->room, sizeof(ret_place->room), "%.*s:%.*s",
                     SW_SARG(l.config->store_kind), SW_SARG(l.config->store_path));
        sw_cli__loaded_fini(&l);
        SW_ASSERT(n > 0 && (size_t)n < sizeof(ret_place->room)); /* the schema's limit is lower */
        text = sw_slice_cstr(ret_place->room);
    }
    if (sw_slice_starts(text, SW_S("memory:"))) {
        return no_file(a);
    }
    for (size_t i = 0; i < SW_COUNTOF(kinds); i++) {
        struct sw_slice prefix = kinds[i].prefix;

        if (sw_slice_starts(text, prefix) && text.len > prefix.len) {
            ret_place->kind = &kinds[i];
            ret_place->path = sw_slice_tail(text, prefix.len);
            return SW_EXIT_OK;
        }
    }
    return sw_cli__usage_error(
        a->command, "this works on lmdb:FOLDER and journal:FOLDER, not on \"%.*s\"", SW_SARG(text));
}

/* ---- text for people ------------------------------------------------------------------------- */

struct figure {
    char text[40];
};

static struct figure size_of(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes / 1024;
    size_t unit = 0;
    struct figure f;

    if (bytes < 1024) {
        (void)snprintf(f.text, sizeof(f.text), "%" PRIu64 " B", bytes);
        return f;
    }
    while (n >= 1023.95 && unit + 1 < SW_COUNTOF(units)) {
        n /= 1024;
        unit++;
    }
    (void)snprintf(f.text, sizeof(f.text), "%.1f %s", n, units[unit]);
    return f;
}

static struct figure time_of(int64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct figure f = {"-"};
    struct tm tm;

    if (unix_s != 0 && gmtime_r(&t, &tm) != NULL) {
        (void)strftime(f.text, sizeof(f.text), "%Y-%m-%d %H:%M:%S UTC", &tm);
    }
    return f;
}

static void row(const char *name, uint64_t n)
{
    printf("%-18s %" PRIu64 "\n", name, n);
}

static void print_stat(const struct place *at, const struct sw_store_checked *c)
{
    const char *rest = at->kind->log ? "over, or not used yet" : "free for new records";

    printf("%-18s %.*s\n", "store", SW_SARG(at->path));
    printf("%-18s %u, made %s\n", "format", c->format, time_of(c->made_unix_s).text);
    row("records", c->records);
    row("  with a subject", c->subjects);
    row("  with a due time", c->due);
    row("cut-offs", c->cutoffs);
    printf("%-18s %s on the disk: %s in use, %s %s\n", "file", size_of(c->file_bytes).text,
           size_of(c->used_bytes).text, size_of(c->free_bytes).text, rest);
    if (at->kind->log) {
        row("  segments", c->segments);
        printf("%-18s %s when it is open (limits.store-memory)\n", "memory",
               size_of(c->memory_bytes).text);
    }
}

static void print_kinds(const struct sw_store_checked *c)
{
    row("  states", c->states);
    row("  ended", c->tombstones);
    row("  renewed ids", c->aliases);
    row("  idempotency keys", c->claims);
    printf("%-18s %s\n", "values", size_of(c->value_bytes).text);
    printf("%-18s %s\n", "first made", time_of(c->oldest_unix_s).text);
    printf("%-18s %s\n", "last written", time_of(c->newest_unix_s).text);
}

static void complain(void *arg, const char *text)
{
    (void)arg;
    (void)fprintf(stderr, "%s\n", text);
}

static int failed(const struct sw_cli_args *a, const char *why)
{
    (void)fprintf(stderr, "stateway %s: %s\n", a->command->name, why);
    return SW_EXIT_FAILED;
}

/* ---- the four -------------------------------------------------------------------------------- */

static int run_stat(const struct sw_cli_args *a, const struct place *at)
{
    struct sw_store_checked c;
    const char *why = "";

    if (at->kind->check(at->path, true, complain, NULL, &c, &why) != SW_OK) {
        return failed(a, why);
    }
    print_stat(at, &c);
    return SW_EXIT_OK;
}

static int run_check(const struct sw_cli_args *a, const struct place *at)
{
    struct sw_store_checked c;
    const char *why = "";
    enum sw_err err = at->kind->check(at->path, false, complain, NULL, &c, &why);

    if (c.format != 0) { /* it could be opened */
        print_stat(at, &c);
        print_kinds(&c);
        row(at->kind->log ? "damaged frames" : "damaged records", c.bad_records);
        if (!at->kind->log) {
            row("wrong entries", c.bad_index);
        }
    }
    if (err != SW_OK) {
        return failed(a, why);
    }
    printf("whole: every %s is as it should be\n",
           at->kind->log ? "frame of its log" : "record and every entry of its indexes");
    return SW_EXIT_OK;
}

static int run_compact(const struct sw_cli_args *a, const struct place *at)
{
    uint64_t before = 0, after = 0;
    const char *why = "";

    if (at->kind->compact(at->path, &before, &after, &why) != SW_OK) {
        return failed(a, why);
    }
    printf("%.*s: %s before, %s now\n", SW_SARG(at->path), size_of(before).text,
           size_of(after).text);
    return SW_EXIT_OK;
}

static int run_backup(const struct sw_cli_args *a, const struct place *at)
{
    struct sw_slice to = sw_slice_cstr(a->words[1]);
    struct sw_store_checked c;
    const char *why = "";

    if (at->kind->backup(at->path, to, &why) != SW_OK ||
        at->kind->check(to, true, complain, NULL, &c, &why) != SW_OK) {
        return failed(a, why);
    }
    printf("%.*s: %" PRIu64 " records, %s. To restore it stop the gateway, and %s. The file of "
           "keys (keys.json) is not in it.\n",
           SW_SARG(to), c.records, size_of(c.used_bytes).text, at->kind->restore);
    return SW_EXIT_OK;
}

int sw_cli__store(const struct sw_cli_args *args)
{
    static const struct {
        const char *name, *takes;
        size_t words;
        int (*run)(const struct sw_cli_args *a, const struct place *at);
    } verbs[] = {
        {"stat", "", 1, run_stat},
        {"check", "", 1, run_check},
        {"backup", " FOLDER, one that does not exist yet", 2, run_backup},
        {"compact", "", 1, run_compact},
    };
    const char *names[SW_COUNTOF(verbs)], *near;
    struct place at;
    int code;

    if (args->word_count == 0) {
        return sw_cli__usage_error(args->command, "what to do? stat, check, backup or compact");
    }
    for (size_t i = 0; i < SW_COUNTOF(verbs); i++) {
        names[i] = verbs[i].name;
        if (strcmp(verbs[i].name, args->words[0]) != 0) {
            continue;
        }
        if (args->word_count != verbs[i].words || args->rest != NULL) {
            return sw_cli__usage_error(args->command, "%s takes%s", verbs[i].name,
                                       verbs[i].words == 1 ? " no word behind it" : verbs[i].takes);
        }
        code = store_find(args, &at);
        return code == SW_EXIT_OK ? verbs[i].run(args, &at) : code;
    }
    near = sw_cli__nearest(args->words[0], names, SW_COUNTOF(names));
    return near != NULL
               ? sw_cli__usage_error(args->command, "there is no \"%s\"; did you mean \"%s\"?",
                                     args->words[0], near)
               : sw_cli__usage_error(args->command,
                                     "there is no \"%s\": it is stat, check, backup or compact",
                                     args->words[0]);
}
