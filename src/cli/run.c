/* cli/run.c - `stateway run`. */
#include "cli/cli_priv.h"

int sw_cli__run(const struct sw_cli_args *args)
{
    struct sw_loaded l;
    int code;

    if (args->word_count > 0) {
        return sw_cli__usage_error(args->command, "\"%s\" stands alone; a command goes behind --",
                                   args->words[0]);
    }
    code = sw_cli__load(args, &l);
    if (code != SW_EXIT_OK) {
        return code;
    }
    code = sw_super_run(&(struct sw_super_options){
        .gateway_args = l.gateway_args,
        .text = l.text,
        .name = l.name,
        .config = l.config,
    });
    sw_cli__loaded_fini(&l);
    return code;
}
