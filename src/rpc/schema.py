#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make wire.h (structs, procedure numbers) and wire.c (codec and procedure tables) from libvirt.schema.

usage: schema.py SCHEMA HEADER SOURCE
"""
import re
import sys

# kind: (C type, wire bytes of one)
SCALARS = {
    "int": ("int32_t", 4), "uint": ("uint32_t", 4), "hyper": ("int64_t", 8), "uhyper": ("uint64_t", 8),
    "short": ("int16_t", 4), "ushort": ("uint16_t", 4), "char": ("char", 4), "uchar": ("uint8_t", 4),
    "double": ("double", 8), "string": ("char *", 4), "uuid": ("uint8_t", 16), "opaque": ("uint8_t", 4),
}
KEYWORDS = {"int", "long", "short", "char", "double", "float", "union", "struct", "register", "default", "auto"}
# Words of an API name that are not simply capitalized.
WORDS = {"XML": "XML", "OS": "OS", "URI": "URI", "CPU": "CPU", "UUID": "UUID", "ID": "ID", "NMI": "NMI", "FD": "FD",
         "PM": "PM", "FSFREEZE": "FSFreeze", "FSTHAW": "FSThaw", "FSTRIM": "FSTrim", "FSINFO": "FSInfo", "SEV": "SEV",
         "IOTHREAD": "IOThread", "NWFILTER": "NWFilter", "NWFILTERS": "NWFilters", "DHCP": "DHCP", "SSH": "SSH",
         "MAC": "MAC", "SCSI": "SCSI", "WWN": "WWN", "AFFECT": "Affect", "IO": "Io", "DETTACH": "Dettach"}


class SchemaError(Exception):
    pass


class Type:
    def __init__(self, name, fields, union):
        self.name, self.fields, self.union = name, fields, union
        if union:
            self.wire = 4 + min(f.wire for f in fields)
        else:
            self.wire = sum(f.wire for f in fields)


class Field:
    """One member: `kind` is a scalar's name or a Type, `shape` one of one, optional, array, fixed."""

    def __init__(self, kind, shape, count, name, case=None):
        self.kind, self.shape, self.count, self.name, self.case = kind, shape, count, name, case
        one = kind.wire if isinstance(kind, Type) else SCALARS[kind][1]
        self.wire = {"one": one, "optional": 4, "array": 4, "fixed": one * count}[shape]
        if name in KEYWORDS:
            raise SchemaError(f"{name} cannot be a member of a C struct")

    @property
    def c_type(self):
        return f"struct {self.kind.name} " if isinstance(self.kind, Type) else SCALARS[self.kind][0] + " "

    def members(self):
        base = self.c_type.replace("* ", "*")
        if self.shape == "fixed":
            return [f"{base}{self.name}[{self.count}];"]
        if self.kind == "uuid":
            return [f"{base}{self.name}[16];"]
        if self.shape == "array":
            return [f"uint32_t {self.name}_len;", f"{base}*{self.name};"]
        if self.shape == "optional" and isinstance(self.kind, Type):
            return [f"{base}*{self.name};"]
        return [f"{base}{self.name};"]

    def record(self, owner):
        kind = "STRUCT" if isinstance(self.kind, Type) else self.kind.upper()
        parts = [f".kind = WIRE_{kind}", f".shape = WIRE_{self.shape.upper()}", f'.name = "{self.name}"']
        member = f"u.{self.name}" if self.case is not None else self.name
        parts.append(f".offset = offsetof(struct {owner}, {member})")
        if self.shape == "array":
            parts.append(f".len_offset = offsetof(struct {owner}, {member}_len)")
        if self.count:
            parts.append(f".count = {self.count}")
        if self.case is not None:
            parts.append(f".union_case = {self.case}")
        if isinstance(self.kind, Type):
            parts.append(f".type = &wire_{self.kind.name}")
        return "{ " + ", ".join(parts) + " },"


class Schema:
    def __init__(self, lines):
        self.types, self.flags, self.programs, self.string_max = {}, {}, [], None
        logical = []
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("\t"):
                logical[-1][1] += " " + line.strip()
            else:
                logical.append([number, line])
        for number, line in logical:
            try:
                self.line(line)
            except (SchemaError, KeyError, ValueError, IndexError) as e:
                raise SystemExit(f"libvirt.schema:{number}: {e!r} in: {line}")

    def line(self, line):
        word, rest = line.split(None, 1)
        if word == "limit":
            what, value = rest.split()
            if what != "string":
                raise SchemaError(f"no limit of {what}")
            self.string_max = int(value)
        elif word == "flag":
            name, value = rest.split()
            self.flags[name] = int(value)
        elif word in ("type", "union"):
            name, body = rest.split(None, 1)
            if name in self.types:
                raise SchemaError(f"second {name}")
            self.types[name] = self.struct("remote_" + name, body, word == "union")
        elif word == "program":
            name, number, version = rest.split()
            self.programs.append({"name": name, "number": int(number, 0), "version": int(version), "procs": {}})
        else:
            self.procedure(int(word), rest)

    def struct(self, c, body, union=False):
        m = re.fullmatch(r"\{(.*)\}", body.strip())
        if not m:
            raise SchemaError("no { } body")
        fields = []
        for text in filter(None, (t.strip() for t in m[1].split(";"))):
            words = text.split()
            case = int(words.pop(0)) if union else None
            spelled, name = words
            m2 = re.fullmatch(r"(\w+)(\?|<(\d+)>|\[(\d+)\])?", spelled)
            base = self.types.get(m2[1], m2[1])
            if not isinstance(base, Type) and base not in SCALARS:
                raise SchemaError(f"no type {base}")
            count = int(m2[3] or m2[4] or 0)
            shape = "one" if not m2[2] else "optional" if m2[2] == "?" else "array" if m2[3] else "fixed"
            pointer = base == "string" or isinstance(base, Type)
            if base == "opaque" and shape != "array" or shape == "optional" and not pointer:
                raise SchemaError(f"no {spelled}")
            fields.append(Field(base, shape, count, name, case))
        return Type(c, fields, union)

    def body(self, c, text):
        """A struct of its own, or a type of the table; None for an empty one."""
        if text.startswith("="):
            return self.types[text[1:].strip()], False
        t = self.struct(c, text)
        return (t, True) if t.fields else (None, False)

    def procedure(self, number, rest):
        program = self.programs[-1]
        if number in program["procs"]:
            raise SchemaError(f"second procedure {number}")
        name, word, tail = rest.split(None, 2)
        c = f"{program['name']}_{name.lower()}"
        p = {"name": name, "event": word == "event", "priority": word, "rules": [], "filter": None, "stream": "none"}
        if p["event"]:
            p["args"], p["own_args"] = self.body(c + "_msg", tail)
            p["ret"], p["own_ret"] = None, False
        else:
            if word not in ("high", "low"):
                raise SchemaError(f"no priority {word}")
            head, _, ret = tail.partition("->")
            m = re.fullmatch(r"(.*?)\s*(\{.*\}|= \w+)\s*", head)
            rules = re.sub(r",\s+", ",", m[1]).split()
            p["args"], p["own_args"] = self.body(c + "_args", m[2])
            p["ret"], p["own_ret"] = self.body(c + "_ret", ret.strip())
            p["rules"] = [] if rules[0] == "none" else [self.rule(r, p["args"]) for r in rules[0].split(",")]
            for option in rules[1:]:
                key, value = option.split("=")
                if key == "filter":
                    p["filter"] = value.split(":")
                elif key == "stream" and value in ("read", "write"):
                    p["stream"] = value
                else:
                    raise SchemaError(f"no option {option}")
        program["procs"][number] = p

    def rule(self, text, args):
        part = text.split(":") + ["", "", ""]
        rule = {"object": part[0], "permission": part[1], "when": "ALWAYS", "field": None, "value": 0}
        if part[3]:
            rule.update(when="EQUAL", field=part[3], value=self.flags[part[4]])
        elif part[2]:
            none = part[2].startswith("!")
            value = 0
            for flag in part[2].lstrip("!").split("|"):
                value |= self.flags[flag]
            rule.update(when="NONE" if none else "ANY", field="flags", value=value)
        if rule["field"]:
            field = next(f for f in args.fields if f.name == rule["field"])
            if field.kind not in ("uint", "int") or field.shape != "one":
                raise SchemaError(f"{rule['field']} holds no flags")
        return rule


def function_name(program, name):
    """The public function a procedure serves, as libvirt's messages name it."""
    words = name.split("_")
    if program != "remote":
        program = {"qemu": "Qemu", "lxc": "Lxc"}[program]
    else:
        program = ""
    return "vir" + program + "".join(WORDS.get(w, w.capitalize()) for w in words)


def structs(schema):
    yield from schema.types.values()
    for program in schema.programs:
        for p in program["procs"].values():
            for which in ("args", "ret"):
                if p["own_" + which]:
                    yield p[which]


def header(schema):
    out = ["/* Made by schema.py from libvirt.schema. */", "#pragma once", "#include <stdint.h>", "",
           '#include "rpc/codec.h"', "", f"#define WIRE_STRING_MAX {schema.string_max}u", ""]
    for program in schema.programs:
        name = program["name"].upper()
        out += [f"#define {name}_PROGRAM {program['number']:#x}u", f"#define {name}_VERSION {program['version']}u",
                f"enum {program['name']}_proc {{"]
        out += [f"\t{name}_PROC_{p['name']} = {n}," for n, p in program["procs"].items()]
        out += ["};", f"extern const struct rpc_program {program['name']}_program;", ""]
    for t in structs(schema):
        out.append(f"struct {t.name} {{")
        if t.union:
            out += ["\tint32_t type;", "\tunion {"] + [f"\t\t{m}" for f in t.fields for m in f.members()] + ["\t} u;"]
        else:
            out += [f"\t{m}" for f in t.fields for m in f.members()]
        out += ["};", f"extern const struct wire_type wire_{t.name};", ""]
    out += ["/* Every type above, and every program; each list ends with NULL. */",
            "extern const struct wire_type *const wire_types[];",
            "extern const struct rpc_program *const rpc_programs[];"]
    return "\n".join(out) + "\n"


def source(schema):
    out = ["/* Made by schema.py from libvirt.schema. */", '#include "rpc/wire.h"', "", "#include <stddef.h>", ""]
    for t in structs(schema):
        out.append(f"static const struct wire_field {t.name}_fields[] = {{")
        out += ["\t" + f.record(t.name) for f in t.fields]
        out += ["};", f"const struct wire_type wire_{t.name} = {{",
                f'\t.name = "{t.name}", .size = sizeof(struct {t.name}), .wire_min = {t.wire}, '
                f".is_union = {int(t.union)}, .nfields = {len(t.fields)}, .fields = {t.name}_fields,", "};", ""]
    for program in schema.programs:
        base = program["name"]
        for p in program["procs"].values():
            if p["rules"]:
                out.append(f"static const struct rpc_rule {base}_{p['name'].lower()}_rules[] = {{")
                for r in p["rules"]:
                    at = f"offsetof(struct {p['args'].name}, {r['field']})" if r["field"] else "0"
                    out.append(f'\t{{ .object = "{r["object"]}", .permission = "{r["permission"]}", '
                               f".when = RPC_WHEN_{r['when']}, .offset = {at}, .value = {r['value']} }},")
                out += ["};", ""]
        out.append(f"static const struct rpc_proc {base}_procs[] = {{")
        for n, p in sorted(program["procs"].items()):
            parts = [f'.name = "{p["name"]}"', f'.function = "{function_name(base, p["name"])}"', f".number = {n}"]
            parts.append(f".program = &{base}_program")
            if p["event"]:
                parts.append(".is_event = true")
            if p["priority"] == "high":
                parts.append(".high_priority = true")
            if p["stream"] != "none":
                parts.append(f".stream = RPC_STREAM_{p['stream'].upper()}")
            for which in ("args", "ret"):
                if p[which]:
                    parts.append(f".{which} = &wire_{p[which].name}")
            if p["rules"]:
                parts.append(f".rules = {base}_{p['name'].lower()}_rules, .nrules = {len(p['rules'])}")
            if p["filter"]:
                parts.append(f'.filter_object = "{p["filter"][0]}", .filter_permission = "{p["filter"][1]}"')
            out.append(f"\t[{n}] = {{ " + ", ".join(parts) + " },")
        out += ["};", f"const struct rpc_program {base}_program = {{",
                f'\t.name = "{base}", .number = {base.upper()}_PROGRAM, .version = {base.upper()}_VERSION, '
                f".procs = {base}_procs, .nprocs = {max(program['procs']) + 1},", "};", ""]
    out.append("const struct wire_type *const wire_types[] = {")
    out += [f"\t&wire_{t.name}," for t in structs(schema)] + ["\tNULL,", "};", ""]
    out.append("const struct rpc_program *const rpc_programs[] = {")
    out += [f"\t&{p['name']}_program," for p in schema.programs] + ["\tNULL,", "};"]
    return "\n".join(out) + "\n"


def main():
    path, h, c = sys.argv[1:]
    with open(path) as f:
        schema = Schema(f)
    with open(h, "w") as f:
        f.write(header(schema))
    with open(c, "w") as f:
        f.write(source(schema))


main()
