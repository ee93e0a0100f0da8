//! The known name that a misspelt one was probably meant to be.

/// The known name closest to `name`, if at most `farthest` letters (of a short name at most one)
/// have to be added, dropped, replaced or exchanged with the next one. Case, `_` and `-` do not count, so that
/// `etcdEndpoint` is close to `etcd_endpoints`.
pub fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    farthest: usize,
) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let name = plain(name);
    let length = name.chars().count();
    let farthest = farthest.min(match length {
        0..3 => 0,
        3..6 => 1,
        _ => farthest,
    });
    // Each letter that one has more than the other has to be added or dropped.
    let distance = |known: &str| match plain(known) {
        known if known.chars().count().abs_diff(length) > farthest => usize::MAX,
        known => edit_distance(&name, &known),
    };
    let distances = known.into_iter().map(|known| (distance(known), known));
    let closest = distances.min_by_key(|(distance, _)| *distance);
    closest.filter(|(distance, _)| *distance <= farthest).map(|(_, known)| known)
}

/// How many letters have to be added, dropped, replaced or exchanged with the next one (optimal
/// string alignment).
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (row, letter) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = rows[row][column] + usize::from(letter != other);
            let mut least = replaced.min(rows[row][column + 1] + 1).min(current[column] + 1);
            let is_exchanged =
                row > 0 && column > 0 && (letter, &left[row - 1]) == (&right[column - 1], other);
            if is_exchanged {
                least = least.min(rows[row - 1][column - 1] + 1);
            }
            current.push(least);
        }
        rows.push(current);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_near_and_other_words_are_not() {
        let near = |name| nearest(name, ["etcd_endpoints", "etcd_key_file", "mtu"], 2);
        for slip in
            ["etcdEndpoint", "etcd-endpoints", "ETCD_ENDPOINDS", "etcd_endpoints", "ectd_endpoint"]
        {
            assert_eq!(near(slip), Some("etcd_endpoints"), "{slip}");
        }
        assert_eq!(near("mtus"), Some("mtu"));
        for other in ["etcd_peer_key_file", "mac", "vmut", "m", "", "endpoints"] {
            assert_eq!(near(other), None, "{other}");
        }
    }
}
