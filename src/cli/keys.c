/* cli/keys.c - `stateway keys`: the life of the keys in the ring, seed -> active -> retired ->
 * gone.
 *
 * Works on the file; a gateway follows it within seconds. What a gateway has counted is asked of
 * its admin API, if that answers.
 */
#include "cli/cli_priv.h"

#include "base/json.h"
#include "crypto/crypto.h"
#include "gateway/gateway.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_DEFAULT "./state/keys.json" /* as `run` without a file has it */
#define PATH_BYTES   4096
#define LOCK_WAIT_MS 5000
#define TIME_CHARS   32

struct keys_ask {
    const struct sw_cli_args *args;
    char path[PATH_BYTES];
    bool has_config;
    struct sw_keys_rules rules; /* of has_config */
    int64_t now_unix_s;
    uint32_t id; /* of promote, retire */
    uint32_t made, former;
    char why[PATH_BYTES + 64];
};

/* ---- which ring ------------------------------------------------------------------------------ */

static int path_set(struct keys_ask *k, struct sw_slice path)
{
    if (path.len >= sizeof(k->path)) {
        return sw_cli__usage_error(k->args->command, "the path is too long");
    }
    memcpy(k->path, path.ptr, path.len);
    k->path[path.len] = '\0';
    return SW_EXIT_OK;
}

static int ring_find(struct keys_ask *k)
{
    struct sw_cli_args file_args = {.command = k->args->command};
    struct sw_loaded l = {.config = NULL};
    int code = path_set(k, SW_S(FILE_DEFAULT));

    if (sw_cli__has(k->args, FLAG_CONFIG)) {
        file_args.values[FLAG_CONFIG] = k->args->values[FLAG_CONFIG];
        code = sw_cli__load(&file_args, &l);
        if (code != SW_EXIT_OK) {
            return code;
        }
        k->has_config = true;
        sw_gateway_keys_rules(l.config, &k->rules);
        code = path_set(k, l.config->keys_file);
        sw_cli__loaded_fini(&l);
    }
    if (code == SW_EXIT_OK && sw_cli__has(k->args, FLAG_FILE)) {
        code = path_set(k, sw_slice_cstr(k->args->values[FLAG_FILE]));
    }
    return code;
}

/* root works as the file's owner, so that what it leaves can be read by the gateway. */
static bool owner_become(const char *path)
{
    struct stat st;

    if (geteuid() != 0 || stat(path, &st) != 0 || st.st_uid == 0) {
        return true;
    }
    if (setgroups(0, NULL) != 0 || setegid(st.st_gid) != 0 || seteuid(st.st_uid) != 0) {
        fprintf(stderr, "stateway: cannot work as the owner of %s: %s\n", path, strerror(errno));
        return false;
    }
    return true;
}

static bool in_environment(void)
{
    return getenv(SW_KEYS_ENV) != NULL;
}

/* ---- text for people ------------------------------------------------------------------------- */

static const char *time_text(int64_t unix_s, char text[TIME_CHARS])
{
    time_t t = (time_t)unix_s;
    struct tm tm;

    if (unix_s <= 0 || gmtime_r(&t, &tm) == NULL ||
        strftime(text, TIME_CHARS, "%Y-%m-%d %H:%M:%SZ", &tm) == 0) {
        return "-";
    }
    return text;
}

static int failed(const char *why)
{
    fprintf(stderr, "stateway: %s\n", why);
    return SW_EXIT_FAILED;
}

/* ---- list ------------------------------------------------------------------------------------ */

struct counted {
    bool known;
    uint64_t opened, made, last_unix_s;
};

/* Without the complaint of a client that cannot connect: the file is the answer, this is more. */
static bool answers(const struct sw_cli_target *t)
{
    int fd = socket(t->addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, &t->addr.sa, t->addr.len) == 0;

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static uint64_t number(struct sw_slice object, const char *name)
{
    struct sw_slice value;
    uint64_t n = 0;

    return sw_json_get(object, sw_slice_cstr(name), &value) && sw_slice_u64(value, &n) ? n : 0;
}

static void counted_read(struct sw_slice answer, const struct sw_keyring *ring,
                         struct counted list[SW_KEYS_MAX])
{
    struct sw_json_checked checked = sw_json_check(answer);
    struct sw_slice keys, name, one;
    struct sw_json_iter it;

    if (checked.err != SW_OK || checked.type != SW_JSON_OBJECT ||
        !sw_json_get(answer, SW_S("keys"), &keys) || sw_json_type_of(keys) != SW_JSON_ARRAY) {
        return;
    }
    it = sw_json_iter(keys);
    while (sw_json_next(&it, &name, &one)) {
        for (size_t i = 0; i < ring->count; i++) {
            if (sw_json_type_of(one) == SW_JSON_OBJECT && number(one, "id") == ring->keys[i].id) {
                list[i] = (struct counted){true, number(one, "opened"), number(one, "made"),
                                           number(one, "last_used")};
            }
        }
    }
}

/* What the gateway counted; SW_EXIT_OK also when none answers. */
static int counted_ask(const struct keys_ask *k, const struct sw_keyring *ring,
                       struct counted list[SW_KEYS_MAX])
{
    bool wanted = sw_cli__has(k->args, FLAG_ADMIN) || k->has_config;
    struct sw_cli_call call = {.method = "GET", .path = "/v1/keys"};
    struct sw_cli_target t;
    int code;

    if (!wanted) {
        return SW_EXIT_OK;
    }
    code = sw_cli__target_find(k->args, &t);
    if (code != SW_EXIT_OK) {
        return code;
    }
    if (!answers(&t)) {
        if (sw_cli__has(k->args, FLAG_ADMIN)) {
            fprintf(stderr, "stateway: nobody answers on %s: uses are not shown\n", t.text);
        }
        return SW_EXIT_OK;
    }
    if (!sw_cli__call(&t, &call)) {
        return SW_EXIT_FAILED;
    }
    if (call.status == 200) {
        counted_read(call.answer, ring, list);
    } else {
        (void)sw_cli__refused(&call);
    }
    free(call.block);
    return SW_EXIT_OK;
}

/* The last column: what is known of what is still out there. */
static void alive_text(const struct keys_ask *k, const struct sw_keyring *ring,
                       const struct sw_key *key, struct sw_out *out)
{
    char when[TIME_CHARS];
    int64_t dead = sw_keyring_dead_unix_s(ring, key, &k->rules);

    if (key->state == SW_KEY_SEED) {
        sw_out_lit(out, "nothing was made with it yet");
    } else if (key->state == SW_KEY_ACTIVE) {
        sw_out_lit(out, "makes");
    } else if (!k->has_config) {
        sw_out_lit(out, "-c FILE tells how long what it made can live");
    } else if (key->retired_unix_s == 0) {
        sw_out_lit(out, "since when it is retired is not known");
    } else if (dead == INT64_MAX) {
        sw_out_lit(out, "names subjects of `encrypt: on` routes");
    } else {
        sw_out_printf(out,
                      dead <= k->now_unix_s ? "nothing made with it is alive since %s"
                                            : "nothing made with it can be alive after %s",
                      time_text(dead, when));
    }
}

static void list_json(const struct keys_ask *k, const struct sw_keyring *ring,
                      const struct counted *list)
{
    printf("{\"keys\":[");
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];
        int64_t dead = sw_keyring_dead_unix_s(ring, key, &k->rules);

        printf("%s{\"id\":%u,\"state\":\"%s\",\"created\":%" PRId64, i > 0 ? "," : "", key->id,
               sw_key_state_name(key->state), key->created_unix_s);
        if (key->retired_unix_s > 0) {
            printf(",\"retired\":%" PRId64, key->retired_unix_s);
        }
        if (k->has_config && key->state == SW_KEY_RETIRED && dead != INT64_MAX) {
            printf(",\"dead\":%" PRId64, dead);
        }
        if (list[i].known) {
            printf(",\"made\":%" PRIu64 ",\"opened\":%" PRIu64 ",\"last_used\":%" PRIu64,
                   list[i].made, list[i].opened, list[i].last_unix_s);
        }
        printf("}");
    }
    printf("]}\n");
}

static void list_text(const struct keys_ask *k, const struct sw_keyring *ring,
                      const struct counted *list)
{
    printf("%-10s %-8s %-20s %-20s %10s %10s %-20s  %s\n", "KEY", "STATE", "CREATED", "RETIRED",
           "MADE", "OPENED", "LAST USED", "");
    for (size_t i = 0; i < ring->count; i++) {
        const struct sw_key *key = &ring->keys[i];
        char created[TIME_CHARS], retired[TIME_CHARS], last[TIME_CHARS], made[24] = "-",
                                                                         opened[24] = "-";
        char alive[160];
        struct sw_out out = sw_out_init(alive, sizeof(alive));
        struct sw_slice said;

        if (list[i].known) {
            snprintf(made, sizeof(made), "%" PRIu64, list[i].made);
            snprintf(opened, sizeof(opened), "%" PRIu64, list[i].opened);
        }
        alive_text(k, ring, key, &out);
        said = sw_out_done(&out);
        printf("%-10u %-8s %-20s %-20s %10s %10s %-20s  %.*s\n", key->id,
               sw_key_state_name(key->state), time_text(key->created_unix_s, created),
               time_text(key->retired_unix_s, retired), made, opened,
               time_text((int64_t)list[i].last_unix_s, last), SW_SARG(said));
    }
    if (list[ring->active].known) {
        printf(
            "\nMade and opened: since the gateway process started. A use shows that something is "
            "alive;\nno use does not show that nothing is: the date does.\n");
    }
}

static int keys_list(struct keys_ask *k)
{
    struct counted list[SW_KEYS_MAX] = {{false, 0, 0, 0}};
    struct sw_keyring ring;
    const char *why = "";
    enum sw_err err =
        in_environment() ? sw_keyring_from_env(&ring, &why) : sw_keyring_read(k->path, &ring, &why);
    int code;

    if (err != SW_OK) {
        return failed(why);
    }
    code = counted_ask(k, &ring, list);
    if (code == SW_EXIT_OK && sw_cli__has(k->args, FLAG_JSON)) {
        list_json(k, &ring, list);
    } else if (code == SW_EXIT_OK) {
        list_text(k, &ring, list);
    }
    explicit_bzero(&ring, sizeof(ring));
    return code;
}

/* ---- changes: each under the file's lock, on what the file says then ------------------------- */

static enum sw_err no_such(struct keys_ask *k, const char **ret_why)
{
    snprintf(k->why, sizeof(k->why), "there is no key %u in %s", k->id, k->path);
    *ret_why = k->why;
    return SW_E_NOT_FOUND;
}

static enum sw_err do_add(void *arg, struct sw_keyring *ring, bool *ret_changed,
                          const char **ret_why)
{
    struct keys_ask *k = arg;
    enum sw_err err = sw_keyring_add(ring, k->now_unix_s, &k->made);

    if (err == SW_E_LIMIT) {
        snprintf(
            k->why, sizeof(k->why),
            "there are %d keys, and no ring has more; take one out with `stateway keys retire`",
            SW_KEYS_MAX);
        *ret_why = k->why;
    }
    *ret_changed = err == SW_OK;
    return err;
}

static enum sw_err do_promote(void *arg, struct sw_keyring *ring, bool *ret_changed,
                              const char **ret_why)
{
    struct keys_ask *k = arg;
    enum sw_err err;

    k->former = ring->keys[ring->active].id;
    err = sw_keyring_promote(ring, k->id, k->now_unix_s);
    if (err == SW_E_NOT_FOUND) {
        return no_such(k, ret_why);
    }
    if (err == SW_E_CONFLICT) {
        snprintf(k->why, sizeof(k->why), "key %u is the active one already", k->id);
        *ret_why = k->why;
    }
    *ret_changed = err == SW_OK;
    return err;
}

static enum sw_err do_rotate(void *arg, struct sw_keyring *ring, bool *ret_changed,
                             const char **ret_why)
{
    struct keys_ask *k = arg;
    enum sw_err err = do_add(arg, ring, ret_changed, ret_why);

    if (err != SW_OK) {
        return err;
    }
    k->id = k->made;
    return do_promote(arg, ring, ret_changed, ret_why);
}

/* Why it may not go yet; NULL: it may. */
static const char *still_needed(struct keys_ask *k, const struct sw_keyring *ring,
                                const struct sw_key *key)
{
    int64_t dead = sw_keyring_dead_unix_s(ring, key, &k->rules);
    char when[TIME_CHARS];

    if (key->state == SW_KEY_SEED) {
        return NULL;
    }
    if (!k->has_config) {
        return "how long what was made with it can live is in the configuration: -c FILE; --force "
               "removes it all the same";
    }
    if (k->rules.names && key == sw_keyring_oldest(ring)) {
        return "it is the oldest, and names the subjects of `encrypt: on` routes: without it, "
               "sessions that exist cannot be found or ended by their subject; --force removes it "
               "all the same";
    }
    if (dead > k->now_unix_s) {
        snprintf(k->why, sizeof(k->why),
                 "key %u: what was made with it can be alive until %s; --force removes it all the "
                 "same, and whoever has such a cookie or token loses it",
                 key->id, time_text(dead, when));
        return k->why;
    }
    return NULL;
}

static enum sw_err do_retire(void *arg, struct sw_keyring *ring, bool *ret_changed,
                             const char **ret_why)
{
    struct keys_ask *k = arg;
    const struct sw_key *key = sw_keyring_find(ring, k->id);
    const char *why;
    enum sw_err err;

    if (key == NULL) {
        return no_such(k, ret_why);
    }
    if (key->state == SW_KEY_ACTIVE) {
        snprintf(k->why, sizeof(k->why),
                 "key %u is the active one; promote another one first, or `stateway keys rotate`",
                 k->id);
        *ret_why = k->why;
        return SW_E_CONFLICT;
    }
    why = still_needed(k, ring, key);
    if (why != NULL && !sw_cli__has(k->args, FLAG_FORCE)) {
        *ret_why = why;
        return SW_E_CONFLICT;
    }
    err = sw_keyring_remove(ring, k->id);
    SW_ASSERT(err == SW_OK);
    *ret_changed = true;
    return err;
}

static int change(struct keys_ask *k, sw_keyring_fn *fn, struct sw_keyring *ret_ring)
{
    const char *why = "";
    enum sw_err err;

    if (in_environment()) {
        return failed("the keys come from " SW_KEYS_ENV ", in the environment: they are changed "
                      "where it is set");
    }
    err = sw_keyring_change(k->path, LOCK_WAIT_MS, k->now_unix_s, fn, k, ret_ring, &why);
    return err == SW_OK ? SW_EXIT_OK : failed(why);
}

static void say_retired(const struct keys_ask *k, const struct sw_keyring *ring, uint32_t id)
{
    const struct sw_key *key = sw_keyring_find(ring, id);
    char alive[160];
    struct sw_out out = sw_out_init(alive, sizeof(alive));
    struct sw_slice said;

    SW_ASSERT(key != NULL);
    alive_text(k, ring, key, &out);
    said = sw_out_done(&out);
    printf("key %u: retired: %.*s\n", id, SW_SARG(said));
}

static int keys_add(struct keys_ask *k)
{
    struct sw_keyring ring;
    int code = change(k, do_add, &ring);

    if (code == SW_EXIT_OK) {
        explicit_bzero(&ring, sizeof(ring));
        printf("key %u: added as a seed; `stateway keys promote %u` when every gateway has read "
               "the file (they look each second)\n",
               k->made, k->made);
    }
    return code;
}

static int keys_promote(struct keys_ask *k, sw_keyring_fn *fn)
{
    struct sw_keyring ring;
    int code = change(k, fn, &ring);

    if (code == SW_EXIT_OK) {
        printf("key %u: active from now on\n", k->id);
        say_retired(k, &ring, k->former);
        explicit_bzero(&ring, sizeof(ring));
    }
    return code;
}

static int keys_retire(struct keys_ask *k)
{
    struct sw_keyring ring;
    int code = change(k, do_retire, &ring);

    if (code == SW_EXIT_OK) {
        explicit_bzero(&ring, sizeof(ring));
        printf("key %u: removed; what was made with it is not accepted any more\n", k->id);
    }
    return code;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int with_id(struct keys_ask *k)
{
    uint64_t n;

    if (k->args->word_count != 2 || !sw_slice_u64(sw_slice_cstr(k->args->words[1]), &n) || n == 0 ||
        n > UINT32_MAX) {
        return sw_cli__usage_error(k->args->command,
                                   "%s takes the number of a key, as `stateway keys list` shows it",
                                   k->args->words[0]);
    }
    k->id = (uint32_t)n;
    return SW_EXIT_OK;
}

int sw_cli__keys(const struct sw_cli_args *args)
{
    static const char *const verbs[] = {"list", "add", "promote", "retire", "rotate"};
    enum { LIST, ADD, PROMOTE, RETIRE, ROTATE, COUNT };
    struct keys_ask k = {.args = args, .now_unix_s = (int64_t)time(NULL)};
    const char *near;
    size_t verb = 0;
    int code;

    if (args->word_count == 0) {
        return sw_cli__usage_error(args->command, "list, add, promote, retire or rotate?");
    }
    while (verb < COUNT && strcmp(args->words[0], verbs[verb]) != 0) {
        verb++;
    }
    if (verb == COUNT) {
        near = sw_cli__nearest(args->words[0], verbs, COUNT);
        return sw_cli__usage_error(args->command, "there is no `keys %s`; %s%s?", args->words[0],
                                   near != NULL ? "did you mean "
                                                : "list, add, promote, retire "
                                                  "or rotate",
                                   near != NULL ? near : "");
    }
    if ((verb == PROMOTE || verb == RETIRE) && (code = with_id(&k)) != SW_EXIT_OK) {
        return code;
    }
    if (verb != PROMOTE && verb != RETIRE && args->word_count > 1) {
        return sw_cli__usage_error(args->command, "%s takes no more words", args->words[0]);
    }
    code = ring_find(&k);
    if (code != SW_EXIT_OK) {
        return code;
    }
    if (!in_environment() && !owner_become(k.path)) {
        return SW_EXIT_FAILED;
    }
    switch (verb) {
    case LIST:
        return keys_list(&k);
    case ADD:
        return keys_add(&k);
    case PROMOTE:
        return keys_promote(&k, do_promote);
    case RETIRE:
        return keys_retire(&k);
    default:
        return sw_cli__has(args, FLAG_SEED) ? keys_add(&k) : keys_promote(&k, do_rotate);
    }
}
