#!/usr/bin/env python3
"""Writes what is linked into the programs: a CycloneDX 1.5 SBOM and the licences' texts.

Usage: scripts/sbom.py VERSION TARGET SBOM LICENCES

Names every crate that the three programs link for one target, directly or not, but no macros and
no build scripts; and beside them SQLite, Rust's library, glibc and GCC's, which are linked too. The
same tree, compiler and libraries give the same bytes: the serial number follows from the content,
the time is SOURCE_DATE_EPOCH.
"""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from urllib.parse import quote

PROGRAMS = ("weir", "weir-ipam", "weirctl")
TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")
PREFACE = """\
Weir links what is named below: crates, SQLite (in the public domain), Rust's library (MIT or
Apache-2.0) and the C libraries of Debian. With Weir's source, which is free, anybody can link it
with another glibc, as the LGPL asks for. The licences:
"""
# How a compiler says where its C libraries are, and their licences.
LIBRARIES = (
    ("-print-file-name=libc.a", "LGPL-2.1-or-later"),
    ("-print-libgcc-file-name", "GPL-3.0-or-later WITH GCC-exception-3.1"),
)


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def metadata(target):
    return json.loads(
        output("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target)
    )


def tree(target):
    """The crates in the programs, as name and version: with the features that these have alone."""
    programs = [f"--package={program}" for program in PROGRAMS]
    edges = "--edges=normal,no-proc-macro"
    printed = output(
        "cargo", "tree", "--locked", *programs, edges, "--target", target, "--prefix=none"
    )
    return set(re.findall(r"^(\S+) v(\S+)", printed, re.MULTILINE))


def linked(data, names):
    """All packages, and for each that is linked those that it links itself."""
    packages = {package["id"]: package for package in data["packages"]}
    chosen = {id for id, it in packages.items() if (it["name"], it["version"]) in names}
    edges = {}
    for node in data["resolve"]["nodes"]:
        if node["id"] in chosen:
            edges[node["id"]] = sorted(
                dependency["pkg"]
                for dependency in node["deps"]
                if dependency["pkg"] in chosen
                and any(kind["kind"] is None for kind in dependency["dep_kinds"])
            )
    return packages, edges


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def checksums():
    """The lock file's checksums, by name and version."""
    found, entry = {}, {}
    for line in pathlib.Path("Cargo.lock").read_text().splitlines():
        if line == "[[package]]":
            entry = {}
        elif " = " in line:
            key, value = line.split(" = ", 1)
            entry[key] = value.strip('"')
            if key == "checksum":
                found[entry["name"], entry["version"]] = entry["checksum"]
    return found


def component(package, sums):
    found = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "licenses": [{"expression": expression(package)}],
        "purl": purl(package),
    }
    digest = sums.get((package["name"], package["version"]))
    if digest:
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if package.get("description"):
        found["description"] = " ".join(package["description"].split())
    return found


def debian(target):
    """Debian's packages with the C libraries for a target: names, versions and licences."""
    machine = target.split("-")[0]
    compiler = "gcc" if machine == os.uname().machine else f"{machine}-linux-gnu-gcc"
    for option, licence in LIBRARIES:
        file = os.path.realpath(output(compiler, option).strip())
        package = output("dpkg", "-S", file).split(": ")[0]
        version = output("dpkg-query", "-W", "-f", "${Version}", package)
        yield package.split(":")[0], version, licence


def sqlite(packages):
    """The version of the SQLite that a crate brings along."""
    [crate] = [it for it in packages.values() if it["name"] == "libsqlite3-sys"]
    header = pathlib.Path(crate["manifest_path"]).parent / "sqlite3/sqlite3.h"
    return re.search(r'#define SQLITE_VERSION +"(.+)"', header.read_text()).group(1)


def beside_crates(target, packages):
    """What is linked and no crate."""
    rust = re.search(r"^release: (.*)$", output("rustc", "-vV"), re.MULTILINE).group(1)
    found = [
        ("rust-std", rust, "MIT OR Apache-2.0", f"pkg:generic/rust-std@{rust}"),
        ("sqlite", sqlite(packages), "blessing", f"pkg:generic/sqlite@{sqlite(packages)}"),
    ]
    for name, version, licence in debian(target):
        found.append((name, version, licence, f"pkg:deb/debian/{name}@{quote(version)}"))
    return [
        {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "licenses": [{"expression": licence}],
            "purl": purl,
        }
        for name, version, licence, purl in found
    ]


def expression(package):
    """The licence as SPDX has it: older crates write `/` for OR."""
    return (package["license"] or "NOASSERTION").replace("/", " OR ").replace("  ", " ")


def bom(version, target, packages, edges):
    sums = checksums()
    ordered = sorted(edges, key=lambda id: (packages[id]["name"], packages[id]["version"]))
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": f"weir@{version}",
                "name": "weir",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": [component(packages[id], sums) for id in ordered]
        + beside_crates(target, packages),
        "dependencies": [
            {"ref": purl(packages[id]), "dependsOn": [purl(packages[it]) for it in edges[id]]}
            for id in ordered
        ],
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    body["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}"
    return body


def licences(target, packages, edges):
    """The texts that the crates carry, each text once, with the crates that it belongs to."""
    texts, without = {}, []
    for id in sorted(edges, key=lambda id: packages[id]["name"]):
        package = packages[id]
        if package["source"] is None:
            continue
        name = f"{package['name']} {package['version']} ({expression(package)})"
        directory = pathlib.Path(package["manifest_path"]).parent
        files = sorted(it for it in directory.iterdir() if it.name.upper().startswith(TEXTS))
        files = [it for it in files if it.is_file()]
        for file in files:
            text = file.read_text(errors="replace").strip()
            texts.setdefault(text, []).append(name)
        if not files:
            without.append(name)
    for name, version, _ in debian(target):
        text = pathlib.Path("/usr/share/doc", name, "copyright").read_text().strip()
        texts.setdefault(text, []).append(f"{name} {version}, of Debian")
    parts = [PREFACE]
    for text, names in texts.items():
        parts.append("=" * 80 + "\n" + "\n".join(sorted(set(names))) + "\n\n" + text + "\n")
    if without:
        parts.append("=" * 80 + "\nWithout a text in the package; licensed as named:\n")
        parts.append("\n".join(without) + "\n")
    return "\n".join(parts)


def main():
    version, target, to_bom, to_licences = sys.argv[1:]
    packages, edges = linked(metadata(target), tree(target))
    text = json.dumps(bom(version, target, packages, edges), indent=1, ensure_ascii=False)
    pathlib.Path(to_bom).write_text(text + "\n")
    pathlib.Path(to_licences).write_text(licences(target, packages, edges))


main()
