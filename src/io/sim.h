/* io/sim.h - the third engine: an in-memory network and a virtual clock, with seeded faults.
 *
 * Room       io/. For tests and tests/sim only: no thread, no system call, one thread for all
 * loops. Flow       sw_sim_new -> sw_loop_new_sim (one or many) -> sw_sim_listen ->
 * sw_listener_open, as with real sockets -> sw_sim_run. Virtual time jumps to the next event.
 *
 * One seed decides everything: which loop runs next, how long bytes travel, where reads and writes
 * are cut, what breaks. Two runs of one program with one seed have the same sw_sim_hash.
 *
 * Rules of the network: bytes of one direction of a connection never change their order, and are
 * never lost but by a reset (or a mute connection); between connections everything may be
 * reordered.
 */
#ifndef SW_SIM_H
#define SW_SIM_H

#include "base/rng.h"
#include "io/io.h"

struct sw_sim;

/* The wall clock when a simulation begins; then it follows the virtual clock. */
#define SW_SIM_UNIX_S 1760000000

/* Probabilities are parts per million. All zero: a perfect network with 1 us of travel. */
struct sw_sim_faults {
    uint64_t delay_min_ns, delay_max_ns; /* of each segment, each way */
    uint32_t spike_ppm;                  /* a segment takes up to spike_ns longer */
    uint64_t spike_ns;
    uint32_t short_write_ppm; /* a write takes a random part */
    uint32_t short_read_ppm;  /* a read gets a random part */
    uint32_t one_byte_ppm;    /* of the short ones: exactly one byte */
    uint32_t pipe_bytes_min,
        pipe_bytes_max;       /* what a direction holds; 0: 64 KiB. Full: the sender waits */
    uint32_t refuse_ppm;      /* a connect is refused though somebody listens */
    uint32_t hang_ppm;        /* a connect is never answered (TIMEOUT after 130 s) */
    uint32_t no_files_ppm;    /* connect or accept finds no descriptor */
    uint32_t reset_ppm;       /* a connection is fated to be reset ... */
    uint64_t reset_within_ns; /* ... at a random moment within this time of its life */
    uint32_t reset_byte_ppm;  /* a segment brings a reset with it */
    uint32_t mute_ppm;        /* a connection goes dumb (a lost host) within reset_within_ns */
    uint32_t drop_unread_ppm; /* a reset also destroys what had arrived and was not read */
    uint32_t overrun_ppm;     /* a buffer more after read_stop, as io_uring may deliver */
    uint32_t lazy_ppm;        /* sends and closes complete in a later turn, as with io_uring */
    uint32_t stall_ppm;       /* after a turn the loop's thread sleeps up to stall_ns */
    uint64_t stall_ns;
};

/* Each fault on or off, mild or hard, by the generator ("swarm testing": one seed has few faults,
 * so that one cannot hide another). breaking: also what ends connections (resets, mutes, refusals).
 */
struct sw_sim_faults sw_sim_faults_swarm(struct sw_rng *rng, bool breaking);

/* NULL: no memory. faults is copied; NULL: none. */
struct sw_sim *sw_sim_new(uint64_t seed, const struct sw_sim_faults *faults);
/* All loops must be freed before. */
void sw_sim_free(struct sw_sim *sim);
/* From now on. Where reset_ppm and mute_ppm are 0, fates already drawn are called off and mute
 * connections are reset (the lost host is back and knows nothing of them): for the quiet end of a
 * run, in which everything must come to rest. */
void sw_sim_set_faults(struct sw_sim *sim, const struct sw_sim_faults *faults);

/* A loop in the simulation. opt->engine is ignored. Free it with sw_loop_free: that is also how a
 * process dies: its connections are closed by "the kernel". Not from a callback of that loop. */
SW_MUST enum sw_err sw_loop_new_sim(struct sw_sim *sim, const struct sw_loop_options *opt,
                                    struct sw_loop **ret_loop);

/* A listening socket as the supervisor would make it: a number for sw_listener_open. It outlives
 * the loop that accepts on it: connections wait in its backlog. Several on one address share the
 * connections, as with SO_REUSEPORT. */
SW_MUST enum sw_err sw_sim_listen(struct sw_sim *sim, const struct sw_addr *addr, int backlog,
                                  int *ret_fd);
/* Closes it, resetting what waits in the backlog; the listener on it must be closed before. */
void sw_sim_unlisten(struct sw_sim *sim, int fd);

/* One turn of one loop, or one jump of the clock (not beyond until_ns). False: nothing will ever
 * happen again by itself, or until_ns is reached. */
bool sw_sim_step(struct sw_sim *sim, uint64_t until_ns);
/* Steps until the clock shows until_ns. */
void sw_sim_run(struct sw_sim *sim, uint64_t until_ns);
/* No byte under way, no loop with work, no timer: only new calls can change anything. */
bool sw_sim_idle(struct sw_sim *sim);

uint64_t sw_sim_now_ns(const struct sw_sim *sim);
/* Somebody sets the wall clock, forward or back; the monotonic clock does not notice. */
void sw_sim_wall_step(struct sw_sim *sim, int64_t ns);
/* Of all that happened so far: equal in two runs of one seed. */
uint64_t sw_sim_hash(const struct sw_sim *sim);
/* The caller's own events become part of the hash. */
void sw_sim_note(struct sw_sim *sim, uint64_t value);
/* For choices of the world around (fake clients and apps): a stream of its own. */
uint64_t sw_sim_random(struct sw_sim *sim);

/* One line an event; NULL: off. */
typedef void sw_sim_trace_fn(void *arg, const char *line);
void sw_sim_set_trace(struct sw_sim *sim, sw_sim_trace_fn *fn, void *arg);

struct sw_sim_stats {
    uint64_t turns, events, segments, bytes, connects, accepts;
    uint64_t short_writes, short_reads, blocked, resets, mutes, refused, hangs, no_files, overruns,
        stalls, lazy, starved;
    uint32_t connections; /* with an open end, or with bytes under way */
};
void sw_sim_stats(const struct sw_sim *sim, struct sw_sim_stats *ret_stats);

#endif
