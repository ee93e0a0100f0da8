#!/usr/bin/env python3
"""Sorts the samples that `perf script` prints by what a process was doing.

Standard input: stacks, the innermost function first. The argument is the number of processes
that were sampled, 20,000 times a second.
"""
import collections
import re
import sys

MICROSECONDS = 1_000_000 / 20_000
# The first row one of whose functions is anywhere in a stack.
KERNEL = [
    ("page faults", "asm_exc_page_fault"),
    ("unmapping memory at the end", "exit_mmap"),
    ("the rest of the end", "do_exit|__x64_sys_exit"),
    ("execve, loading the program", ".*execve|load_elf_binary|ret_from_fork.*|schedule_tail"),
    ("making the veth", "rtnl_newlink"),
    ("other links, addresses, routes, neighbours", "netlink_(sendmsg|recvmsg)|rtnetlink_rcv.*"),
    ("nftables", "nfnetlink_rcv"),
    ("opening files", "__x64_sys_openat"),
    ("reading and writing files", "__x64_sys_(p?read64|p?write64|read|write|statx|newfstatat|ftruncate)"),
    ("memory maps", "__x64_sys_(brk|mmap|mprotect|munmap|madvise)"),
    ("threads and waiting", "__x64_sys_(futex|epoll.*|poll|eventfd2|sched_yield)|__do_sys_clone3"),
    ("file locks", "__x64_sys_(fcntl|flock)"),
    ("sockets", "__x64_sys_(socket|bind|setsockopt|getsockname|sendto|recvfrom|ioctl)"),
    ("closing files", "__x64_sys_close"),
    ("other system calls and interrupts", "do_syscall_64|x64_sys_call|asm_.*|entry_SYSCALL.*"),
]
# The first row that the innermost function is of, where that is the program's.
PROGRAM = [
    ("asking the processor for its features (glibc)",
     "handle_amd|get_common_indices.*|get_extended_indices.*|update_active.*|__libc_start_main_impl"
     "|cpu_features.*|init_cacheinfo.*"),
    ("SQLite", "sqlite3.*|wal[A-Z].*|yy_.*|vdbe.*|btree.*|pager.*|pcache.*|where.*|resolve.*|keyword.*"
     "|findElement.*|unix[A-Z].*|.*Mem(Malloc|Free)|rusqlite.*|select.*|code[A-Z].*"),
    ("allocating memory", ".*malloc.*|_int_.*|.*free.*|realloc|unlink_chunk.*|calloc|alloc::.*"),
    ("copying and comparing memory", "__mem.*|__str.*"),
    ("JSON", ".*serde.*"),
    ("netlink messages, tokio", ".*(netlink|tokio|futures|mio).*"),
    ("Weir", ".*weir.*"),
    ("the rest of the program", ".*"),
]


def row(stack):
    for name, pattern in KERNEL:
        if any(re.fullmatch(pattern, function) for function in stack):
            return "kernel", name
    return "program", next(name for name, pattern in PROGRAM if re.fullmatch(pattern, stack[0]))


def main():
    calls = int(sys.argv[1])
    samples = [block.strip().split("\n") for block in sys.stdin.read().split("\n\n")]
    # A thread beside has its own name: the process is known by the first one's.
    adds = {header.split()[-1] for header, *_ in samples if header.startswith("weir ")}
    rows = collections.Counter()
    for header, *lines in samples:
        stack = [(line.split(None, 1) + ["?"])[1] for line in lines]
        if stack and header.split()[-1] in adds:
            rows[row(stack)] += 1
    print("| where | what | ms of an ADD |\n|---|---|--:|")
    for (where, name), count in rows.most_common():
        print(f"| {where} | {name} | {count * MICROSECONDS / calls / 1000:.2f} |")
    print(f"| | all | {sum(rows.values()) * MICROSECONDS / calls / 1000:.2f} |")


main()
