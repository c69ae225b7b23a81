/* tests/cost/wrap.c - preloaded into the supervisor: starts the gateway process under what
 * COST_WRAP names.
 *
 * The supervisor executes /proc/self/exe, which under valgrind would be valgrind itself; so the
 * supervisor runs as it is, and only the gateway process is wrapped. COST_WRAP holds the words of
 * the command before the gateway's own, one a line; COST_BINARY is the gateway's executable.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 64

int execve(const char *path, char *const argv[], char *const envp[])
{
    typedef int execve_fn(const char *, char *const[], char *const[]);
    execve_fn *next = (execve_fn *)(uintptr_t)dlsym(RTLD_NEXT, "execve");
    const char *wrap = getenv("COST_WRAP"), *binary = getenv("COST_BINARY");
    char *words[WORDS_MAX + 1], *left, *word;
    size_t count = 0;

    if (strcmp(path, "/proc/self/exe") != 0 || wrap == NULL || binary == NULL) {
        return next(path, argv, envp);
    }
    for (left = strdup(wrap); (word = strsep(&left, "\n")) != NULL && count < WORDS_MAX;) {
        words[count++] = word;
    }
    words[count++] = strdup(binary);
    for (size_t i = 1; argv[i] != NULL && count < WORDS_MAX; i++) {
        words[count++] = argv[i];
    }
    words[count] = NULL;
    return next(words[0], words, envp);
}
