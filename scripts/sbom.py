#!/usr/bin/env python3
"""Writes what is linked into the programs: a CycloneDX 1.5 SBOM and the licences' texts.

Usage: scripts/sbom.py VERSION TARGET SBOM LICENCES

Goes by `cargo metadata` for one target: every crate that the three programs link, directly or
not. The same tree gives the same bytes: the serial number follows from the content, the time is
SOURCE_DATE_EPOCH.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import uuid
from datetime import datetime, timezone

PROGRAMS = ("weir", "weir-ipam", "weirctl")
TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")


def metadata(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(data):
    """The packages that the programs link, and for each those it links itself."""
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    members = set(data["workspace_members"])
    roots = [id for id in members if packages[id]["name"] in PROGRAMS]
    edges, waiting = {}, list(roots)
    while waiting:
        here = waiting.pop()
        if here in edges:
            continue
        normal = [
            dependency["pkg"]
            for dependency in nodes[here]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        edges[here] = sorted(normal)
        waiting += normal
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


def expression(package):
    """The licence as SPDX has it: older crates write `/` for OR."""
    return (package["license"] or "NOASSERTION").replace("/", " OR ").replace("  ", " ")


def bom(version, packages, edges):
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
        "components": [component(packages[id], sums) for id in ordered],
        "dependencies": [
            {"ref": purl(packages[id]), "dependsOn": [purl(packages[it]) for it in edges[id]]}
            for id in ordered
        ],
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    body["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}"
    return body


def licences(packages, edges):
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
    parts = ["Weir links the crates below. Their licences:\n"]
    for text, names in texts.items():
        parts.append("=" * 80 + "\n" + "\n".join(sorted(set(names))) + "\n\n" + text + "\n")
    if without:
        parts.append("=" * 80 + "\nWithout a text in the package; licensed as named:\n")
        parts.append("\n".join(without) + "\n")
    return "\n".join(parts)


def main():
    version, target, to_bom, to_licences = sys.argv[1:]
    packages, edges = linked(metadata(target))
    text = json.dumps(bom(version, packages, edges), indent=1, ensure_ascii=False)
    pathlib.Path(to_bom).write_text(text + "\n")
    pathlib.Path(to_licences).write_text(licences(packages, edges))


main()
