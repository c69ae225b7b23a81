#!/usr/bin/env python3
"""Make a C header of a file, so that the program carries it: embed.py INPUT OUTPUT NAME."""
import sys

source, target, name = sys.argv[1:]
data = open(source, "rb").read()
with open(target, "w", encoding="ascii") as out:
    out.write("#include <stddef.h>\n")
    out.write("static const unsigned char %s[] = {" % name)
    for at in range(0, len(data), 20):
        out.write("\n    " + " ".join("%d," % byte for byte in data[at:at + 20]))
    out.write("\n};\nstatic const size_t %s_bytes = sizeof(%s);\n" % (name, name))
