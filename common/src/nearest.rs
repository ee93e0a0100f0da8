//! The known name that a misspelt one was probably meant to be.

/// The known name closest to `name`, if at most `farthest` letters, and at most half of
/// `name`'s, have to be added, dropped or replaced. Case, `_` and `-` do not count, so that
/// `etcdEndpoint` is close to `etcd_endpoints`.
pub fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    farthest: usize,
) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let name = plain(name);
    let farthest = farthest.min(name.chars().count() / 2);
    let distances = known.into_iter().map(|known| (edit_distance(&name, &plain(known)), known));
    let closest = distances.min_by_key(|(distance, _)| *distance);
    closest.filter(|(distance, _)| *distance <= farthest).map(|(_, known)| known)
}

/// How many letters have to be added, dropped or replaced (Levenshtein).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(letter != *other);
            current.push(replaced.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_near_and_other_words_are_not() {
        let near = |name| nearest(name, ["etcd_endpoints", "etcd_key_file", "mtu"], 2);
        for slip in ["etcdEndpoint", "etcd-endpoints", "ETCD_ENDPOINDS", "etcd_endpoints"] {
            assert_eq!(near(slip), Some("etcd_endpoints"), "{slip}");
        }
        assert_eq!(near("mtus"), Some("mtu"));
        for other in ["etcd_peer_key_file", "mac", "m", "", "endpoints"] {
            assert_eq!(near(other), None, "{other}");
        }
    }
}
