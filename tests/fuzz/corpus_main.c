/* corpus_main.c - runs one fuzz target over every file of the folders given: no fuzzer needed. */
#include "base/base.h"

#include <dirent.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t run_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    size_t count = 0;

    if (dir == NULL) {
        perror(folder);
        return 0;
    }
    while ((entry = readdir(dir)) != NULL) {
        char path[4096];
        uint8_t *data;
        size_t size;
        long end;
        FILE *file;

        if (entry->d_name[0] == '.') {
            continue;
        }
        SW_ASSERT((size_t)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) <
                  sizeof(path));
        file = fopen(path, "rb");
        SW_ASSERT(file != NULL);
        SW_ASSERT(fseek(file, 0, SEEK_END) == 0);
        end = ftell(file);
        SW_ASSERT(end >= 0);
        rewind(file);
        size = (size_t)end;
        data = malloc(size + (size == 0)); /* exact: one byte too far is seen */
        SW_ASSERT(data != NULL);
        SW_ASSERT(fread(data, 1, size, file) == size);
        (void)fclose(file);
        (void)LLVMFuzzerTestOneInput(data, size);
        free(data);
        count++;
    }
    (void)closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    size_t count = 0;

    for (int i = 1; i < argc; i++) {
        count += run_folder(argv[i]);
    }
    printf("%zu inputs\n", count);
    return count > 0 ? 0 : 1;
}
