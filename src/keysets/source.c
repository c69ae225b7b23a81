/* keysets/source.c - one source's life: when it is tried, what becomes of what was read, who waits.
 *
 * Room       keysets/. The thread of the room calls all but want, with the time; workers call want,
 *            and read what is shown (keysets.c).
 *
 *   NEW ──► GOOD ◄──► FAILING      each arrow, and GOOD with other keys, is one line in the log
 *    └──────────────────▲
 *
 * Three sets: `current` is the last one that was read well. `kept` are keys of earlier ones that
 * are not in it. `shown` is current, or both together, and is replaced as a whole.
 */
#include <inttypes.h>
#include <stdarg.h>

#include "keysets/keysets_priv.h"

#define TEXT_BYTES        768
#define NAME_SUFFIX_BYTES 8 /* "#256" */

/* ---- made and freed ---------------------------------------------------------------------------
 */

void sw_keysets__name_put(struct sw_out *out, struct sw_slice source, bool url)
{
    size_t host = url ? sw_slice_find_slice(source, SW_S("://")) + 3 : source.len;

    if (host < source.len) {
        struct sw_slice rest = sw_slice_tail(source, host);
        struct sw_slice authority = sw_slice_head(rest, sw_slice_find(rest, '/'));

        rest = sw_slice_head(rest, SW_MIN(sw_slice_find(rest, '?'), sw_slice_find(rest, '#')));
        for (size_t i = authority.len; i > 0; i--) {
            if (authority.ptr[i - 1] == '@') {
                rest = sw_slice_tail(rest, i);
                break;
            }
        }
        sw_out_slice(out, sw_slice_head(source, host));
        source = rest;
    }
    source = sw_slice_head(source, out->cap - out->len);
    for (size_t i = 0; i < source.len; i++) {
        unsigned char c = (unsigned char)source.ptr[i];

        sw_out_char(out, c < 0x20 || c == 0x7f ? '?' : (char)c);
    }
}

void sw_keysets__name_number(struct sw_keyset *ks, unsigned number)
{
    struct sw_out name = sw_out_init(ks->name, sizeof(ks->name));

    name.len = ks->stats.source.len;
    sw_out_char(&name, '#');
    sw_out_u64(&name, number);
    SW_ASSERT(!name.overflowed);
    ks->stats.source = sw_out_done(&name);
}

enum sw_err sw_keysets__source_new(struct sw_keysets *room, struct sw_slice source, bool url,
                                   const struct sw_jwks_rules *rules, struct sw_keyset **ret_keyset)
{
    struct sw_keyset *ks = calloc(1, sizeof(*ks));
    struct sw_out name;

    SW_ASSERT(source.len > 0);
    if (ks == NULL) {
        return SW_E_NO_MEMORY;
    }
    ks->magic = KEYSET_MAGIC;
    ks->room = room;
    ks->source = strndup(source.ptr, source.len);
    if (ks->source == NULL) {
        free(ks);
        return SW_E_NO_MEMORY;
    }
    ks->url = url;
    ks->rules = *rules;
    name = sw_out_init(ks->name, sizeof(ks->name) - NAME_SUFFIX_BYTES);
    sw_keysets__name_put(&name, source, url);
    ks->stats.source = sw_out_done(&name);
    pthread_mutex_init(&ks->lock, NULL);
    sw_list_init(&ks->waits);
    *ret_keyset = ks;
    return SW_OK;
}

void sw_keysets__source_free(struct sw_keyset *ks)
{
    SW_ASSERT(ks->magic == KEYSET_MAGIC);
    for (size_t i = 0; i < ks->kept_count; i++) {
        sw_jwks_unref(ks->kept[i].set);
    }
    sw_jwks_unref(ks->current);
    sw_jwks_unref(ks->shown);
    pthread_mutex_destroy(&ks->lock);
    free(ks->source);
    ks->magic = 0;
    free(ks);
}

/* ---- told -------------------------------------------------------------------------------------
 */

SW_PRINTF(3, 4)
static void tell(struct sw_keyset *ks, enum sw_log_level level, const char *fmt, ...)
{
    const struct sw_keysets_options *opt = &ks->room->opt;
    char text[TEXT_BYTES];
    va_list args;

    if (opt->tell == NULL) {
        return;
    }
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    opt->tell(opt->arg, level, text);
}

/* "; 2 others of the set are not used, the first of them (number 3) because ..." */
static void skipped_put(struct sw_out *out, const struct sw_jwks_report *report)
{
    if (report->skipped > 0) {
        sw_out_printf(out, "; %zu more %s not used, the first (number %zu of the set): %s",
                      report->skipped, report->skipped == 1 ? "is" : "are",
                      report->skipped_first + 1, sw_err_text(report->skipped_by));
    }
}

static void tell_good(struct sw_keyset *ks, enum keyset_state before, bool changed, size_t kept,
                      const struct sw_jwks_report *report)
{
    size_t keys = sw_jwks_count(ks->current);
    char text[TEXT_BYTES / 2];
    struct sw_out out = sw_out_init(text, sizeof(text) - 1);

    if (before == KEYSET_GOOD && !changed) {
        return;
    }
    sw_out_printf(&out, "%zu key%s", keys, keys == 1 ? "" : "s");
    if (kept > 0) {
        sw_out_printf(&out, ", and %zu of before for %" PRIu32 " s", kept,
                      ks->room->opt.times.keep_ms / 1000);
    }
    if (changed) {
        skipped_put(&out, report);
    }
    text[out.len] = '\0';
    tell(ks, SW_LOG_INFO, "keys of %.*s%s: %s", SW_SARG(ks->stats.source),
         before == KEYSET_NEW       ? ""
         : before == KEYSET_FAILING ? " could be read again"
                                    : " changed",
         text);
}

static void tell_failing(struct sw_keyset *ks, const char *why)
{
    if (ks->state == KEYSET_FAILING || (ks->state == KEYSET_NEW && !ks->url)) {
        return; /* a file's first failure is what sw_keysets_ready says */
    }
    tell(ks, SW_LOG_WARN, "keys of %.*s: %s; %s", SW_SARG(ks->stats.source), why,
         ks->state == KEYSET_NEW
             ? "tokens that need them are answered with 503 until they can be fetched"
             : "the keys that were read before stand");
}

/* ---- shown ------------------------------------------------------------------------------------
 */

/* What workers see from now on. Where there is no memory for a copy, the kept keys are missing. */
static void show(struct sw_keyset *ks)
{
    const struct sw_jwk *kept[SW_JWKS_KEYS_MAX];
    struct sw_jwks *set = NULL, *before;

    for (size_t i = 0; i < ks->kept_count; i++) {
        kept[i] = sw_jwks_at(ks->kept[i].set, ks->kept[i].index);
    }
    if (ks->kept_count == 0 || sw_jwks_merge(ks->current, kept, ks->kept_count, &set) != SW_OK) {
        set = sw_jwks_ref(ks->current);
    }
    pthread_mutex_lock(&ks->lock);
    before = ks->shown;
    ks->shown = set;
    ks->stats.keys = (uint32_t)sw_jwks_count(ks->current);
    ks->stats.kept = (uint32_t)(sw_jwks_count(set) - sw_jwks_count(ks->current));
    atomic_fetch_add_explicit(&ks->generation, 1, memory_order_release);
    pthread_mutex_unlock(&ks->lock);
    sw_jwks_unref(before);
}

static bool has_kid(const struct sw_jwks *set, struct sw_slice kid)
{
    for (size_t i = 0; i < sw_jwks_count(set); i++) {
        if (sw_slice_eq(sw_jwk_kid(sw_jwks_at(set, i)), kid)) {
            return true;
        }
    }
    return false;
}

/* Those that are over, or are in `next` again, go. */
static bool kept_sift(struct sw_keyset *ks, const struct sw_jwks *next, uint64_t now_ns)
{
    size_t left = 0, before = ks->kept_count;

    for (size_t i = 0; i < before; i++) {
        struct keyset_kept k = ks->kept[i];

        if (now_ns >= k.until_ns ||
            (next != NULL && has_kid(next, sw_jwk_kid(sw_jwks_at(k.set, k.index))))) {
            sw_jwks_unref(k.set);
        } else {
            ks->kept[left++] = k;
        }
    }
    ks->kept_count = left;
    return left < before;
}

/* The named keys of `current` that `next` has not, in front of the others; the oldest fall off. */
static void kept_add(struct sw_keyset *ks, const struct sw_jwks *next, uint64_t until_ns)
{
    struct keyset_kept all[2 * SW_JWKS_KEYS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < sw_jwks_count(ks->current); i++) {
        struct sw_slice kid = sw_jwk_kid(sw_jwks_at(ks->current, i));

        if (kid.len > 0 && !has_kid(next, kid)) {
            all[count++] = (struct keyset_kept){sw_jwks_ref(ks->current), i, until_ns};
        }
    }
    SW_ASSERT(count <= SW_JWKS_KEYS_MAX);
    SW_ASSERT(ks->kept_count <= SW_JWKS_KEYS_MAX);
    for (size_t i = 0; i < ks->kept_count; i++) {
        all[count++] = ks->kept[i];
    }
    ks->kept_count = SW_MIN(count, (size_t)SW_JWKS_KEYS_MAX);
    memcpy(ks->kept, all, ks->kept_count * sizeof(*all));
    for (size_t i = ks->kept_count; i < count; i++) {
        sw_jwks_unref(all[i].set);
    }
}

void sw_keysets__expire(struct sw_keyset *ks, uint64_t now_ns)
{
    if (kept_sift(ks, NULL, now_ns)) {
        show(ks);
    }
}

/* ---- tried ------------------------------------------------------------------------------------
 */

bool sw_keysets__due(struct sw_keyset *ks, uint64_t now_ns)
{
    bool due;

    pthread_mutex_lock(&ks->lock);
    due = ks->wanted || (!ks->busy && now_ns >= ks->due_ns);
    if (due) {
        ks->busy = true;
        ks->wanted = false;
        ks->stats.fetches++;
    }
    pthread_mutex_unlock(&ks->lock);
    return due;
}

uint64_t sw_keysets__next_ns(const struct sw_keyset *ks)
{
    uint64_t next_ns = ks->due_ns; /* while it is fetched that is never */

    for (size_t i = 0; i < ks->kept_count; i++) {
        next_ns = SW_MIN(next_ns, ks->kept[i].until_ns);
    }
    return next_ns;
}

static void on_done(struct sw_post *post, void *arg)
{
    struct sw_key_wait *wait = arg;

    (void)post;
    wait->done(wait);
}

static void wait_end(struct sw_key_wait *wait)
{
    wait->post.fn = on_done;
    wait->post.arg = wait;
    sw_loop_post(wait->loop, &wait->post);
}

/* What was asked for and still is not there is remembered; a fetch that failed told nothing. */
static void unknown_settle(struct sw_keyset *ks, bool good, uint64_t until_ns)
{
    for (size_t i = 0; i < SW_KEYSET_UNKNOWN_MAX; i++) {
        struct keyset_unknown *u = &ks->unknown[i];

        if (u->pending) {
            u->pending = false;
            u->until_ns = good ? until_ns : 0;
        }
    }
}

/* Whoever waited may look now. */
static void ended(struct sw_keyset *ks, bool good, uint64_t now_ns, int64_t now_unix_s)
{
    struct sw_link waits;
    struct sw_link *l;

    sw_list_init(&waits);
    pthread_mutex_lock(&ks->lock);
    ks->busy = false;
    ks->stats.failing = !good;
    ks->stats.failures += good ? 0 : 1;
    ks->stats.good_unix_s = good ? now_unix_s : ks->stats.good_unix_s;
    unknown_settle(ks, good, now_ns + ks->room->opt.times.again_ms * SW_NS_PER_MS);
    while ((l = sw_list_pop_front(&ks->waits)) != NULL) {
        sw_list_push_back(&waits, l);
    }
    ks->wait_count = 0;
    pthread_mutex_unlock(&ks->lock);
    while ((l = sw_list_pop_front(&waits)) != NULL) {
        wait_end(SW_CONTAINER(l, struct sw_key_wait, link));
    }
}

/* A little earlier, and not all at the same time: many gateways may have begun together. */
static uint64_t after(struct sw_keyset *ks, uint64_t now_ns, uint64_t ms)
{
    return now_ns + (ms - (ks->url ? sw_rng_below(&ks->room->rng, ms / 8 + 1) : 0)) * SW_NS_PER_MS;
}

static uint64_t fresh_ms(const struct sw_keyset *ks, int64_t fresh_s)
{
    const struct sw_keyset_times *t = &ks->room->opt.times;
    uint64_t ms;

    if (!ks->url) {
        return t->file_ms;
    }
    if (fresh_s < 0) {
        return t->fresh_ms;
    }
    ms = (uint64_t)fresh_s * 1000;
    return SW_MIN(SW_MAX(ms, (uint64_t)t->fresh_ms_min), (uint64_t)t->fresh_ms_max);
}

void sw_keysets__failed(struct sw_keyset *ks, const char *why, uint64_t now_ns)
{
    const struct sw_keyset_times *t = &ks->room->opt.times;

    (void)snprintf(ks->why, sizeof(ks->why), "%s", why);
    tell_failing(ks, why);
    ks->state = KEYSET_FAILING;
    ks->retry_ms = ks->retry_ms == 0 ? t->retry_ms : SW_MIN(2 * ks->retry_ms, t->retry_ms_max);
    ks->due_ns = after(ks, now_ns, ks->url ? ks->retry_ms : t->file_ms);
    ended(ks, false, now_ns, 0);
}

void sw_keysets__took(struct sw_keyset *ks, struct sw_slice text, int64_t fresh_s, uint64_t now_ns,
                      int64_t now_unix_s)
{
    enum keyset_state before = ks->state;
    struct sw_jwks_report report = {0};
    struct sw_jwks *next;
    uint8_t hash[32];
    bool changed;

    sw_sha256(text, hash);
    changed = ks->current == NULL || memcmp(hash, ks->text_hash, sizeof(hash)) != 0;
    if (changed) {
        enum sw_err err = sw_jwks_new(text, &ks->rules, &next, &report);

        if (err != SW_OK) {
            sw_keysets__failed(ks, sw_err_text(err), now_ns);
            return;
        }
        (void)kept_sift(ks, next, now_ns);
        if (ks->current != NULL) {
            kept_add(ks, next, now_ns + ks->room->opt.times.keep_ms * SW_NS_PER_MS);
        }
        sw_jwks_unref(ks->current);
        ks->current = next;
        memcpy(ks->text_hash, hash, sizeof(hash));
        show(ks);
    }
    ks->state = KEYSET_GOOD;
    ks->retry_ms = 0;
    ks->due_ns = after(ks, now_ns, fresh_ms(ks, fresh_s));
    tell_good(ks, before, changed, ks->stats.kept, &report);
    ended(ks, true, now_ns, now_unix_s);
}

/* ---- wanted by a token ------------------------------------------------------------------------
 */

static struct keyset_unknown *unknown_find(struct sw_keyset *ks, uint64_t hash)
{
    for (size_t i = 0; i < SW_KEYSET_UNKNOWN_MAX; i++) {
        if (ks->unknown[i].hash == hash &&
            (ks->unknown[i].pending || ks->unknown[i].until_ns > 0)) {
            return &ks->unknown[i];
        }
    }
    return NULL;
}

/* In the place of the oldest: of more ids than there is room for, some are asked for again. */
static void unknown_add(struct sw_keyset *ks, uint64_t hash)
{
    struct keyset_unknown *u = unknown_find(ks, hash);

    if (u == NULL) {
        u = &ks->unknown[ks->unknown_at];
        ks->unknown_at = (ks->unknown_at + 1) % SW_KEYSET_UNKNOWN_MAX;
    }
    *u = (struct keyset_unknown){hash, 0, true};
}

/* Under the lock. */
static enum sw_step want(struct sw_keyset *ks, struct sw_slice kid, struct sw_key_wait *wait,
                         uint64_t now_ns, bool *ret_order)
{
    uint64_t hash = sw_slice_hash(kid, ks->room->seed);
    struct keyset_unknown *u;

    if (!ks->url) {
        return SW_STEP_DONE; /* it is looked at every other second anyway */
    }
    u = kid.len > 0 ? unknown_find(ks, hash) : NULL;
    if ((u != NULL && !u->pending && now_ns < u->until_ns) ||
        ks->wait_count == SW_KEYSET_WAITS_MAX || (!ks->busy && now_ns < ks->again_ns)) {
        return SW_STEP_DONE;
    }
    if (!ks->busy) {
        ks->busy = true;
        ks->wanted = true;
        ks->again_ns = now_ns + ks->room->opt.times.again_ms * SW_NS_PER_MS;
        *ret_order = true;
    }
    if (kid.len > 0) {
        unknown_add(ks, hash);
    }
    sw_list_push_back(&ks->waits, &wait->link);
    ks->wait_count++;
    return SW_STEP_MORE;
}

enum sw_step sw_keysets__want(struct sw_keyset *ks, struct sw_slice kid, struct sw_key_wait *wait,
                              uint64_t now_ns, bool *ret_order)
{
    enum sw_step step = SW_STEP_MORE;
    bool here;

    *ret_order = false;
    wait->link = (struct sw_link){NULL, NULL};
    pthread_mutex_lock(&ks->lock);
    here = kid.len > 0 && ks->shown != NULL && has_kid(ks->shown, kid);
    if (!here) {
        step = want(ks, kid, wait, now_ns, ret_order);
        ks->stats.refused += step == SW_STEP_DONE ? 1 : 0;
    }
    pthread_mutex_unlock(&ks->lock);
    if (here) {
        wait_end(wait); /* it came after the caller looked */
    }
    return step;
}
