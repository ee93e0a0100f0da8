//! Pools drawn as text: who holds which block, and how full it is.
//!
//! A cell stands for a block, or for several where a pool has too many: its
//! first character says who holds it, its second how full it is in tenths. Rows
//! in which nothing is held are left out, so that what is drawn grows with what
//! is in use and not with the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::block::{host_bits, nth_address};
use super::snapshot::{IpamSnapshot, Owner};
use super::walk::block_bits;
use crate::printable::printable;
use crate::resources::IpPool;

/// The most rows drawn for one pool.
const MAX_ROWS: usize = 32;
/// The most cells in a row, as a power of two.
const MAX_CELL_BITS: u32 = 6;
/// A cell: two characters and a blank before them.
const CELL_WIDTH: usize = 3;
/// What hosts are called in cells.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Draws all pools with a legend, at most `width` columns wide (at least 24; an
/// IPv6 address is longer than half of that).
///
/// `paint` may colour a cell or a legend's letter of the host with this number;
/// nothing that the drawing says depends on it.
pub fn draw(
    snapshot: &IpamSnapshot,
    width: usize,
    paint: impl Fn(usize, &str) -> String,
) -> String {
    let hosts = Hosts::of(snapshot);
    let mut text = String::new();
    for pool in snapshot.pools.iter() {
        let pool_map = PoolMap::of(snapshot, pool, &hosts);
        text.push_str(&pool_map.draw(width, &paint));
        text.push('\n');
    }
    text + &hosts.legend(width, &paint)
}

/// The hosts that hold blocks, and their letters.
struct Hosts<'a> {
    numbers: BTreeMap<&'a str, usize>,
    without_letter: usize,
}

/// Who holds a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The host with this number.
    Host(usize),
    /// A host for which no letter was left.
    Unlettered,
    /// No host.
    Nobody,
    /// Several of these.
    Several,
}

impl<'a> Hosts<'a> {
    /// Letters go to the hosts with the most blocks, in the order of their
    /// names.
    fn of(snapshot: &'a IpamSnapshot) -> Self {
        let mut blocks: BTreeMap<&str, usize> = BTreeMap::new();
        for host in snapshot.blocks.values().filter_map(|block| block.owner.host()) {
            *blocks.entry(host).or_default() += 1;
        }
        let without_letter = blocks.len().saturating_sub(LETTERS.len());
        let mut largest: Vec<(usize, &str)> =
            blocks.into_iter().map(|(host, blocks)| (blocks, host)).collect();
        largest.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        largest.truncate(LETTERS.len());
        let mut names: Vec<&str> = largest.into_iter().map(|(_, host)| host).collect();
        names.sort_unstable();
        let numbers = names.into_iter().enumerate().map(|(number, host)| (host, number)).collect();
        Self { numbers, without_letter }
    }

    fn holder(&self, owner: &Owner) -> Holder {
        match owner.host().map(|host| self.numbers.get(host.as_ref())) {
            Some(Some(number)) => Holder::Host(*number),
            Some(None) => Holder::Unlettered,
            None => Holder::Nobody,
        }
    }

    fn legend(&self, width: usize, paint: &impl Fn(usize, &str) -> String) -> String {
        let mut items: Vec<(String, String)> = Vec::new();
        for (host, number) in &self.numbers {
            let letter = letter(*number).to_string();
            let host = printable(host);
            items.push((format!("{letter} {host}"), format!("{} {host}", paint(*number, &letter))));
        }
        if self.without_letter > 0 {
            let text = format!("* {} further hosts", self.without_letter);
            items.push((text.clone(), text));
        }
        let fixed = [
            "- held by no host",
            "+ several hosts",
            "0 empty",
            "1-9 tenths in use",
            "# full",
            ".. free",
        ];
        items.extend(fixed.map(|text| (text.to_owned(), text.to_owned())));
        wrap(&items, width)
    }
}

/// Puts items in lines; of each the plain text, which is measured, and the text
/// to print.
fn wrap(items: &[(String, String)], width: usize) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for (plain, painted) in items {
        let length = plain.chars().count();
        if column > 0 && column + 3 + length > width {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text.push_str("   ");
            column += 3;
        }
        text.push_str(painted);
        column += length;
    }
    text + "\n"
}

fn letter(number: usize) -> char {
    char::from(LETTERS[number % LETTERS.len()])
}

/// What a cell shows.
#[derive(Clone, Copy)]
struct Cell {
    holder: Holder,
    in_use: u128,
}

/// One pool with its blocks, by their number in the pool.
struct PoolMap<'a> {
    pool: &'a IpPool,
    /// How many blocks the pool has, as a power of two.
    bits: u32,
    blocks: BTreeMap<u128, Cell>,
}

impl<'a> PoolMap<'a> {
    fn of(snapshot: &IpamSnapshot, pool: &'a IpPool, hosts: &Hosts<'_>) -> Self {
        let bits = u32::from(block_bits(pool.cidr, pool.block_size));
        let mut map = Self { pool, bits, blocks: BTreeMap::new() };
        for (block, content) in &snapshot.blocks {
            if pool.cidr.contains(block) {
                let holder = hosts.holder(&content.owner);
                let in_use = content.allocations.len() as u128;
                map.add(map.number(*block), Cell { holder, in_use });
            }
        }
        map
    }

    fn number(&self, block: IpNet) -> u128 {
        distance(self.pool.cidr, block) >> self.block_host_bits()
    }

    /// The addresses of a block, as a power of two.
    fn block_host_bits(&self) -> u32 {
        u32::from(self.pool.cidr.max_prefix_len() - self.pool.block_size)
    }

    fn add(&mut self, number: u128, cell: Cell) {
        merge(&mut self.blocks, number, cell);
    }

    fn draw(&self, width: usize, paint: &impl Fn(usize, &str) -> String) -> String {
        let cell_bits = self.cell_bits(width);
        let zoom = self.zoom(cell_bits);
        let mut cells: BTreeMap<u128, Cell> = BTreeMap::new();
        for (number, cell) in &self.blocks {
            merge(&mut cells, number >> zoom, *cell);
        }
        let rows: BTreeSet<u128> = cells.keys().map(|cell| cell >> cell_bits).collect();
        let labels = self.label_width();
        let mut text = self.title(zoom);
        let mut expected = 0;
        for row in rows {
            text.push_str(&self.gap(row - expected, cell_bits + zoom, labels));
            let label = self.label(row, cell_bits + zoom).to_string();
            text.push_str(&format!("{label:<labels$}"));
            for column in 0..1u128 << cell_bits {
                let cell = cells.get(&((row << cell_bits) + column));
                text.push(' ');
                text.push_str(&self.cell(cell, zoom, paint));
            }
            text.push('\n');
            expected = row + 1;
        }
        let all = 1u128 << (self.bits - zoom - cell_bits);
        text + &self.gap(all - expected, cell_bits + zoom, labels)
    }

    fn title(&self, zoom: u32) -> String {
        let in_use: u128 = self.blocks.values().map(|cell| cell.in_use).sum();
        let cell = match zoom {
            0 => "one block".to_owned(),
            _ => format!("{} blocks", power(zoom)),
        };
        format!(
            "{} {}{}\n{} of {} blocks held, {in_use} of {} addresses in use\na cell is {cell} (/{})\n",
            printable(&self.pool.name),
            self.pool.cidr,
            if self.pool.disabled { ", disabled" } else { "" },
            self.blocks.len(),
            power(self.bits),
            power(u32::from(host_bits(self.pool.cidr))),
            u32::from(self.pool.block_size) - zoom,
        )
    }

    /// How many cells fit in a row, as a power of two, so that rows begin at
    /// round addresses.
    fn cell_bits(&self, width: usize) -> u32 {
        let room = width.saturating_sub(self.label_width()) / CELL_WIDTH;
        room.max(1).ilog2().min(MAX_CELL_BITS).min(self.bits)
    }

    /// The longest address of the pool.
    fn label_width(&self) -> usize {
        let last = self.pool.cidr.broadcast().to_string().len();
        last.max(self.pool.cidr.network().to_string().len())
    }

    /// How many blocks a cell stands for, as a power of two: as few as let the
    /// rows with something in them be few enough.
    fn zoom(&self, cell_bits: u32) -> u32 {
        let most = self.bits - cell_bits;
        let rows = |zoom: u32| {
            let mut rows: Vec<u128> =
                self.blocks.keys().map(|number| number >> (zoom + cell_bits)).collect();
            rows.dedup();
            rows.len()
        };
        (0..most).find(|zoom| rows(*zoom) <= MAX_ROWS).unwrap_or(most)
    }

    fn label(&self, row: u128, row_bits: u32) -> IpAddr {
        nth_address(self.pool.cidr, row << (row_bits + self.block_host_bits()))
    }

    /// The line that stands for rows in which nothing is held.
    fn gap(&self, rows: u128, row_bits: u32, labels: usize) -> String {
        match rows {
            0 => String::new(),
            _ => format!("{:<labels$} {}\n", "", free_blocks(rows, row_bits)),
        }
    }

    fn cell(
        &self,
        cell: Option<&Cell>,
        zoom: u32,
        paint: &impl Fn(usize, &str) -> String,
    ) -> String {
        let Some(Cell { holder, in_use }) = cell else { return "..".to_owned() };
        let fill = fill(*in_use, zoom + self.block_host_bits());
        match holder {
            Holder::Host(number) => paint(*number, &format!("{}{fill}", letter(*number))),
            Holder::Unlettered => format!("*{fill}"),
            Holder::Nobody => format!("-{fill}"),
            Holder::Several => format!("+{fill}"),
        }
    }
}

/// Puts what is held into a cell that may hold something already.
fn merge(cells: &mut BTreeMap<u128, Cell>, number: u128, cell: Cell) {
    let merged = cells.entry(number).or_insert(Cell { in_use: 0, ..cell });
    merged.in_use += cell.in_use;
    if merged.holder != cell.holder {
        merged.holder = Holder::Several;
    }
}

/// How full it is: `0` only when empty, `#` only when full.
fn fill(in_use: u128, size_bits: u32) -> char {
    let size = 1u128 << size_bits.min(120);
    match in_use {
        0 => '0',
        _ if in_use >= size => '#',
        _ => char::from_digit((in_use * 10 / size).max(1) as u32, 10).unwrap_or('9'),
    }
}

fn free_blocks(rows: u128, row_bits: u32) -> String {
    match rows.checked_mul(1u128 << row_bits.min(120)) {
        Some(1) => "1 block free".to_owned(),
        Some(blocks) if blocks < 1 << 40 => format!("{blocks} blocks free"),
        Some(blocks) => format!("more than 2^{} blocks free", blocks.ilog2()),
        None => "more than 2^120 blocks free".to_owned(),
    }
}

/// A power of two as people read it.
fn power(bits: u32) -> String {
    if bits < 40 { (1u64 << bits).to_string() } else { format!("2^{bits}") }
}

/// How far the first address of a block is from that of its pool.
fn distance(pool: IpNet, block: IpNet) -> u128 {
    let bits = |cidr: IpNet| match cidr.network() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    bits(block) - bits(pool)
}
