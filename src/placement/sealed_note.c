/* placement/sealed_note.c - what the store knows of a sealed state: one small record under a hash
 * of its id (sw_revoke_sealed_key), or none.
 *
 *   a tombstone           it ended (logout): until its absolute end, so that no cookie outlives it
 *   an alias              the visitor got another id, under whose key it goes on; also until then
 *   a state, value "17"   `replay-guard`: the newest version that was given out, in decimal
 *   none                  nothing is known: it was neither ended nor guarded
 *
 * Who comes with an older version, or with the id before, may read for SW_SEALED_GRACE_S: a page's
 * requests run side by side, and all but one of them bring what was the newest a moment ago.
 */
#include "placement/sealed_priv.h"

struct sw_sealed_work *sw_sealed__work(struct sw_ask *ask)
{
    if (ask->sealed.work == NULL) {
        ask->sealed.work = sw_arena_new(ask->arena, struct sw_sealed_work);
    }
    return ask->sealed.work;
}

static void on_loaded(struct sw_store_load *op)
{
    struct sw_ask *ask = op->arg;

    ask->wake(ask);
}

static void note_ask(struct sw_ask *ask, const struct sw_store_key *key)
{
    struct sw_sealed_work *work = ask->sealed.work;

    work->mark = sw_arena_mark(ask->arena);
    work->load = (struct sw_store_load){
        .key = *key,
        .now_unix_s = sw_loop_now_unix_s(ask->env->loop),
        .arena = ask->arena,
        .value_bytes_max = 64,
        .loop = ask->env->loop,
        .done = on_loaded,
        .arg = ask,
    };
}

/* A record of the way. True: the way goes on. */
static bool note_take(struct sw_ask *ask)
{
    struct sw_sealed_work *work = ask->sealed.work;
    const struct sw_record *r = &work->load.record;
    struct sw_sealed_note n = {.kind = SW_NOTE_NONE}, *note = &ask->sealed.note;
    struct sw_store_key next = {{0}};

    n.err = work->load.err;
    if (n.err == SW_E_NOT_FOUND) {
        n.err = SW_OK;
    } else if (n.err == SW_OK) {
        n.version = r->version;
        n.at_unix_s = r->touched_unix_s;
        switch (r->kind) {
        case SW_RECORD_TOMBSTONE:
            n.kind = SW_NOTE_ENDED;
            break;
        case SW_RECORD_STATE:
            n.kind = SW_NOTE_COUNTER;
            n.err = sw_slice_u64(r->value, &n.counter) ? SW_OK : SW_E_STORE_CORRUPT;
            break;
        case SW_RECORD_ALIAS:
            n.kind = SW_NOTE_RENEWED;
            memcpy(next.bytes, r->value.ptr, sizeof(next.bytes));
            break;
        case SW_RECORD_CLAIM:
            n.err = SW_E_STORE_CORRUPT; /* no key of ours is one of a claim */
            break;
        }
    }
    sw_arena_reset(ask->arena, work->mark);
    if (work->followed == 0) {
        *note = n;
        note->last_key = ask->sealed.key;
    } else {
        note->err = n.err;
        note->last_ended = n.kind == SW_NOTE_ENDED;
    }
    if (n.err != SW_OK || n.kind != SW_NOTE_RENEWED || work->followed == SW_ALIASES_MAX) {
        return false;
    }
    work->followed++;
    note->last_key = next;
    return true;
}

enum sw_step sw_sealed__note_read(struct sw_ask *ask)
{
    struct sw_sealed_work *work = ask->sealed.work;

    SW_ASSERT(work != NULL);
    if (ask->env->store == NULL) {
        ask->sealed.note = (struct sw_sealed_note){.last_key = ask->sealed.key};
        return SW_STEP_DONE;
    }
    if (!work->loading) {
        work->followed = 0;
        ask->sealed.note = (struct sw_sealed_note){.last_key = ask->sealed.key};
    }
    do {
        if (!work->loading) {
            note_ask(ask, &ask->sealed.note.last_key);
            if (sw_store_load(ask->env->store, &work->load) == SW_STEP_MORE) {
                work->loading = true;
                return SW_STEP_MORE;
            }
        }
        work->loading = false;
    } while (note_take(ask));
    return SW_STEP_DONE;
}

enum sw_sealed_standing sw_sealed__standing(const struct sw_ask *ask)
{
    const struct sw_sealed_note *note = &ask->sealed.note;
    const struct sw_sealed_plain *plain = &ask->sealed.plain;
    int64_t age_s = sw_loop_now_unix_s(ask->env->loop) - note->at_unix_s;

    if (sw_revoke_cut_off(ask->env, plain->subject, plain->bound_unix_ms)) {
        return SW_SEALED_ENDED;
    }
    switch (note->kind) {
    case SW_NOTE_NONE:
        return SW_SEALED_NEWEST;
    case SW_NOTE_ENDED:
        return SW_SEALED_ENDED;
    case SW_NOTE_RENEWED:
        return !note->last_ended && age_s <= SW_SEALED_GRACE_S ? SW_SEALED_OLDER : SW_SEALED_ENDED;
    case SW_NOTE_COUNTER:
        if (!ask->routed->route->sealed.replay_guard || plain->counter >= note->counter) {
            return SW_SEALED_NEWEST; /* a larger one is ours too: the store is an older copy */
        }
        return age_s <= SW_SEALED_GRACE_S ? SW_SEALED_OLDER : SW_SEALED_TOO_OLD;
    }
    SW_UNREACHABLE();
}
