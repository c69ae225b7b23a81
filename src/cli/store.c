/* cli/store.c - `stateway store`: the file behind a store, looked at, checked, copied, made small.
 *
 * Works on the file itself, not through the admin API; beside a running gateway too (but compact).
 */
#include "cli/cli_priv.h"

#include "store/store.h"

#include <inttypes.h>
#include <time.h>

#define STORE_DEFAULT "./state" /* as `run` without a file has it */

/* ---- which store ----------------------------------------------------------------------------- */

static int no_file(const struct sw_cli_args *a)
{
    return sw_cli__usage_error(a->command, "a store in memory has no file");
}

/* The folder of --store, else of the configuration's store; in room. */
static int store_find(const struct sw_cli_args *a, char room[4096], struct sw_slice *ret_path)
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
        n = snprintf(room, 4096, "%.*s:%.*s", SW_SARG(l.config->store_kind),
                     SW_SARG(l.config->store_path));
        sw_cli__loaded_fini(&l);
        SW_ASSERT(n > 0 && n < 4096); /* the schema's limit of a path is lower */
        text = sw_slice_cstr(room);
    }
    if (sw_slice_starts(text, SW_S("memory:"))) {
        return no_file(a);
    }
    if (!sw_slice_starts(text, SW_S("lmdb:")) || text.len == 5) {
        return sw_cli__usage_error(a->command, "this works on lmdb:FOLDER, not on \"%.*s\"",
                                   SW_SARG(text));
    }
    *ret_path = sw_slice_tail(text, 5);
    return SW_EXIT_OK;
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

static void print_stat(struct sw_slice path, const struct sw_store_checked *c)
{
    printf("%-18s %.*s\n", "store", SW_SARG(path));
    printf("%-18s %u, made %s\n", "format", c->format, time_of(c->made_unix_s).text);
    row("records", c->records);
    row("  with a subject", c->subjects);
    row("  with a due time", c->due);
    row("cut-offs", c->cutoffs);
    printf("%-18s %s on the disk: %s in use, %s free for new records\n", "file",
           size_of(c->file_bytes).text, size_of(c->used_bytes).text, size_of(c->free_bytes).text);
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

static int run_stat(const struct sw_cli_args *a, struct sw_slice path)
{
    struct sw_store_checked c;
    const char *why = "";

    if (sw_store_lmdb_check(path, true, complain, NULL, &c, &why) != SW_OK) {
        return failed(a, why);
    }
    print_stat(path, &c);
    return SW_EXIT_OK;
}

static int run_check(const struct sw_cli_args *a, struct sw_slice path)
{
    struct sw_store_checked c;
    const char *why = "";
    enum sw_err err = sw_store_lmdb_check(path, false, complain, NULL, &c, &why);

    if (c.format != 0) { /* it could be opened */
        print_stat(path, &c);
        print_kinds(&c);
        row("damaged records", c.bad_records);
        row("wrong entries", c.bad_index);
    }
    if (err != SW_OK) {
        return failed(a, why);
    }
    printf("whole: every record and every entry of its indexes is as it should be\n");
    return SW_EXIT_OK;
}

static int run_compact(const struct sw_cli_args *a, struct sw_slice path)
{
    uint64_t before = 0, after = 0;
    const char *why = "";

    if (sw_store_lmdb_compact(path, &before, &after, &why) != SW_OK) {
        return failed(a, why);
    }
    printf("%.*s: %s before, %s now\n", SW_SARG(path), size_of(before).text, size_of(after).text);
    return SW_EXIT_OK;
}

static int run_backup(const struct sw_cli_args *a, struct sw_slice path)
{
    struct sw_slice to = sw_slice_cstr(a->words[1]);
    struct sw_store_checked c;
    const char *why = "";

    if (sw_store_lmdb_backup(path, to, &why) != SW_OK ||
        sw_store_lmdb_check(to, true, complain, NULL, &c, &why) != SW_OK) {
        return failed(a, why);
    }
    printf("%.*s: %" PRIu64 " records, %s. To restore it stop the gateway, and put data.mdb in the "
           "place of the store's. The file of keys (keys.json) is not in it.\n",
           SW_SARG(to), c.records, size_of(c.used_bytes).text);
    return SW_EXIT_OK;
}

int sw_cli__store(const struct sw_cli_args *args)
{
    static const struct {
        const char *name, *takes;
        size_t words;
        int (*run)(const struct sw_cli_args *a, struct sw_slice path);
    } verbs[] = {
        {"stat", "", 1, run_stat},
        {"check", "", 1, run_check},
        {"backup", " FOLDER, one that does not exist yet", 2, run_backup},
        {"compact", "", 1, run_compact},
    };
    const char *names[SW_COUNTOF(verbs)], *near;
    struct sw_slice path;
    char room[4096];
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
        code = store_find(args, room, &path);
        return code == SW_EXIT_OK ? verbs[i].run(args, path) : code;
    }
    near = sw_cli__nearest(args->words[0], names, SW_COUNTOF(names));
    return near != NULL
               ? sw_cli__usage_error(args->command, "there is no \"%s\"; did you mean \"%s\"?",
                                     args->words[0], near)
               : sw_cli__usage_error(args->command,
                                     "there is no \"%s\": it is stat, check, backup or compact",
                                     args->words[0]);
}
