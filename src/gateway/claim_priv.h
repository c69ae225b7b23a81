/* gateway/claim_priv.h - what the files of the idempotency key share: claim.c (a request comes with
 * a key) and claim_end.c (its record is written).
 */
#ifndef SW_CLAIM_PRIV_H
#define SW_CLAIM_PRIV_H

#include "gateway/gateway_priv.h"

#define CLAIM_SMALL_BYTES 512u /* a record without an answer is shorter */
#define CLAIM_BASE_BYTES  1024u

enum sw_claim_phase { /* of sw_ex_claim.phase */
                      CLAIM_BEGIN,
                      CLAIM_BODY,   /* the request's body is part of its fingerprint */
                      CLAIM_READ,   /* what is known of the key */
                      CLAIM_INSERT, /* RUNNING becomes durable */
                      CLAIM_RUN,
                      CLAIM_END, /* the last write is on its way */
                      CLAIM_ENDED,
                      CLAIM_UNKEPT, /* the store cannot keep it, and the route says: run */
};

static inline const struct sw_config_route *route_of(const struct sw_exchange *x)
{
    return x->routed.route;
}

/* claim_end.c */
/* Submits one write of the record; claim.pending until it is answered. False: no memory. */
SW_MUST bool sw_claim__submit(struct sw_exchange *x, const struct sw_write *w);
/* A write of the record: in place of the version that is known. value ptr NULL: the key is free. */
struct sw_write sw_claim__record_write(const struct sw_exchange *x, struct sw_slice value);
/* The record's text in the exchange's arena: without an answer it is short. ptr NULL: no memory. */
struct sw_slice sw_claim__small_value(struct sw_exchange *x, enum sw_claim_state state);

#endif
