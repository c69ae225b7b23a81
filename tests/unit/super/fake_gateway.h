/* unit/super/fake_gateway.h - what the supervisor starts in these tests instead of the gateway. */
#ifndef FAKE_GATEWAY_H
#define FAKE_GATEWAY_H

/* Plays the script that stands in place of the configuration, one letter a step:
 *     h  HELLO; prints every INSTANCE until SYNCED
 *     s  START of app N (the next letter), unless an INSTANCE was announced
 *     w  waits for a message and prints it
 *     r  READY                             p  waits 300 ms (for the app to install its handlers)
 *     t  STOP of the last one started, 200 ms grace      k  KILL of it
 *     V K A L Z D I G N   messages that are not valid: version, kind, app, slot, incarnation 0,
 *        incarnation in use, incarnation 0 in STOP, grace, nothing but a few bytes
 *     F  START 2000 times without reading an answer
 *     e  exits with N (the next letter)        i  from here on SHUTDOWN is ignored
 * then prints messages until SHUTDOWN, and exits with 0. */
int fake_gateway_main(int argc, char **argv);

#endif
