/* admin/admin.h - the admin API and the metrics page, on a listener of their own.
 *
 * Room       admin.c (endpoints), conn.c (HTTP/1.1 on the main thread's loop), ask.c (may this
 *            request be answered), gather.c (counters -> one plain snapshot), metrics.c and
 *            answers.c (snapshot -> text); sessions.c (states and subjects), transfer.c (export,
 *            import), wish.c (what a request about them asks for), records.c (records <-> JSON).
 * May touch  gateway/'s accessors and the rooms below it; reads snapshots and the store, sends
 *            commands to app/'s life and commits to the store. No exchange, no worker.
 * Flow       listener -> connection -> ask -> page -> connection.
 *
 * Memory is taken in open, by the configuration: connections, pages, one snapshot; what requests
 * about sessions need comes from a budget of its own, and is refused above it. The loop it runs
 * on should hold SW_ADMIN_CONNECTIONS_MAX streams and SW_ADMIN_BUFFERS_MAX buffers for it; with
 * less it is slower, not wrong.
 */
#ifndef SW_ADMIN_H
#define SW_ADMIN_H

#include "gateway/gateway.h"

#define SW_ADMIN_CONNECTIONS_MAX 64
#define SW_ADMIN_BUFFERS_MAX     (SW_ADMIN_CONNECTIONS_MAX * 3) /* two sent, one received, each */

/* For sw_gateway_main. open: main thread, before its loop runs; borrows g, loop and fd until close.
 * close: when the store is closed (it may have had commits of ours), and before the loop is freed.
 */
extern const struct sw_admin_ops sw_admin;

#endif
