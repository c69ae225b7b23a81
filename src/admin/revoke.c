/* admin/revoke.c - what clients carry, ended by operators: tokens, sealed states, pins.
 *
 * Room       admin/. Main thread.
 * Flow       sessions.c hands in the request; a note is committed; whoever comes with the thing
 *            meets the note (placement/).
 *
 * None of these can be taken back, so what is kept is a small note under a hash of its name, for as
 * long as the thing could live by the routes of today. Whether there ever was such a thing is not
 * known here, and not asked.
 */
#include "admin/admin_priv.h"

#define SEAL_SKEW_S 60 /* the gateway that made it may have been ahead */

/* ---- how long they live ---------------------------------------------------------------------- */

static int64_t token_life_s(const struct sw_config_token *t)
{
    if (t->mint.on) {
        return t->mint.absolute_s;
    }
    return t->age_s_max > 0 ? t->age_s_max : ADMIN_TOKEN_S_UNKNOWN;
}

void sw_admin__lives_of(struct sw_admin *a, const struct sw_config *config)
{
    for (size_t i = 0; i < config->route_count; i++) {
        const struct sw_config_route *r = &config->routes[i];

        if (r->token.on) {
            a->token_s = SW_MAX(a->token_s, token_life_s(&r->token) + r->token.skew_s);
        }
        if (r->placement == SW_PLACE_SEALED || r->moved_from == SW_PLACE_SEALED) {
            a->sealed_s = SW_MAX(a->sealed_s, r->sealed.absolute_s + SEAL_SKEW_S);
        }
        if (r->placement == SW_PLACE_STICKY) {
            a->pin_s = SW_MAX(a->pin_s, r->sticky.absolute_s + SEAL_SKEW_S);
        }
    }
}

/* ---- one of them ----------------------------------------------------------------------------- */

struct noted {
    const char *name, *none; /* what it is; what is said when no route has such */
    int64_t life_s;
    enum sw_admin_ended counted;
    struct sw_store_key key;
};

static struct noted noted_of(const struct sw_admin_conn *c)
{
    const struct sw_admin_wish *w = &c->wish;
    struct noted n = {0};

    switch ((int)c->endpoint) {
    case ADMIN_TOKEN:
        n = (struct noted){.name = "token",
                           .none = "no route takes tokens",
                           .life_s = c->admin->token_s,
                           .counted = ENDED_TOKEN};
        sw_revoke_token_key((struct sw_slice){w->issuer, w->issuer_len},
                            (struct sw_slice){w->jti, w->jti_len}, &n.key);
        return n;
    case ADMIN_SEALED:
        n = (struct noted){.name = "sealed",
                           .none = "no route has `state: sealed`",
                           .life_s = c->admin->sealed_s,
                           .counted = ENDED_SEALED};
        sw_revoke_sealed_key(w->sealed_id, &n.key);
        return n;
    case ADMIN_PIN:
        n = (struct noted){.name = "pin",
                           .none = "no route has `state: sticky`",
                           .life_s = c->admin->pin_s,
                           .counted = ENDED_PIN};
        sw_revoke_pin_key(w->pin_id, &n.key);
        return n;
    default:
        SW_UNREACHABLE();
    }
}

/* {"token":"ended","until":N} */
static void noted_answer(struct sw_admin_conn *c, const char *name, bool found,
                         int64_t until_unix_s)
{
    struct sw_out out = sw_out_init(c->answer.text, sizeof(c->answer.text));

    sw_out_lit(&out, "{\"");
    sw_out_cstr(&out, name);
    sw_out_cstr(&out, found ? "\":\"ended\",\"until\":" : "\":\"not ended\",\"until\":");
    if (found && until_unix_s != 0) {
        sw_out_i64(&out, until_unix_s);
    } else {
        sw_out_lit(&out, "null");
    }
    sw_out_lit(&out, "}\n");
    SW_ASSERT(!out.overflowed);
    sw_admin__answer_init(&c->answer, 200, "application/json");
    c->answer.text_len = out.len;
}

struct looking {
    struct sw_store_key key;
    bool found;
    int64_t until_unix_s;
};

static void look_visit(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct looking *l = arg;

    l->found = r->kind == SW_RECORD_TOMBSTONE && memcmp(key, &l->key, sizeof(*key)) == 0;
    l->until_unix_s = r->expires_unix_s;
}

static enum sw_admin_next note_look(struct sw_admin_conn *c, const struct noted *n)
{
    struct looking l = {.key = n->key};
    enum sw_err err = sw_admin__look(c->admin, &n->key, look_visit, &l);

    if (err != SW_OK) {
        sw_admin__store_failed(c, err);
    } else {
        noted_answer(c, n->name, l.found, l.until_unix_s);
    }
    return ADMIN_NEXT_ANSWER;
}

enum sw_admin_next sw_admin__note_act(struct sw_admin_conn *c)
{
    struct noted n = noted_of(c);
    struct sw_admin *a = c->admin;
    int64_t now_unix_s = sw_loop_now_unix_s(a->loop), until_unix_s = now_unix_s + n.life_s;

    if (n.life_s == 0) {
        sw_admin__fail(&c->answer, 409, n.none, "no-route");
        return ADMIN_NEXT_ANSWER;
    }
    if (c->wish.method != SW_METHOD_DELETE) {
        return note_look(c, &n);
    }
    c->op = (struct sw_store_commit){.count = 1,
                                     .now_unix_s = now_unix_s,
                                     .loop = a->loop,
                                     .done = sw_admin__committed,
                                     .arg = c};
    sw_revoke_write(&n.key, until_unix_s, &c->op.writes[0]);
    if (c->endpoint == ADMIN_PIN) {
        sw_revoke_pins_mark(sw_loop_now_unix_ms(a->loop), until_unix_s, &c->op.writes[1]);
        c->op.count = 2;
    }
    sw_admin__submit(c, &c->op);
    return ADMIN_NEXT_WAIT;
}

enum sw_admin_next sw_admin__note_written(struct sw_admin_conn *c)
{
    struct noted n = noted_of(c);

    switch ((int)c->op.err) {
    case SW_OK:
        c->admin->ended[n.counted]++;
        sw_log(SW_LOG_INFO, "admin: ended a %s",
               n.counted == ENDED_SEALED ? "sealed state" : n.name);
        noted_answer(c, n.name, true, c->op.writes[0].expires_unix_s);
        return ADMIN_NEXT_ANSWER;
    case SW_E_STATE_GONE: /* by somebody else, or by its own logout: it is ended */
        return note_look(c, &n);
    default:
        sw_admin__store_failed(c, c->op.err);
        return ADMIN_NEXT_ANSWER;
    }
}
