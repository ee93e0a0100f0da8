//! Listings of the kernel, which may have to be asked for again: one during which
//! something changed says so (`NLM_F_DUMP_INTR`, netlink(7)), and may lack what was
//! there all the time.

use std::io;
use std::time::Duration;

/// How often a listing is asked for.
const ATTEMPTS: u32 = 10;

/// The pause before each attempt: none, then 1 ms and twice as much each time up to
/// 64 ms, 0.25 s in all. What makes many containers at once needs some time for it.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    let later = (0..ATTEMPTS - 1).map(|number| Duration::from_millis(1 << number.min(6)));
    std::iter::once(Duration::ZERO).chain(later)
}

/// Asks until a listing is of one moment, on this thread's time.
pub(crate) fn repeat<T>(mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for pause in pauses() {
        std::thread::sleep(pause);
        if let Some(listing) = ask()? {
            return Ok(listing);
        }
    }
    Err(kept_changing())
}

/// No listing was of one moment.
pub(crate) fn kept_changing() -> io::Error {
    io::Error::new(
        io::ErrorKind::Interrupted,
        "the kernel's list kept changing while it was read; try again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<u128> = pauses().map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn a_listing_is_asked_for_until_it_is_whole_but_not_for_ever() {
        let mut asked = 0;
        let mut whole_at = |at: Option<u32>| {
            asked = 0;
            let outcome = repeat(|| {
                asked += 1;
                Ok((Some(asked) == at).then_some(asked))
            });
            (outcome.map_err(|error| error.kind()), asked)
        };
        assert_eq!(whole_at(Some(1)), (Ok(1), 1));
        assert_eq!(whole_at(Some(4)), (Ok(4), 4));
        assert_eq!(whole_at(None), (Err(io::ErrorKind::Interrupted), ATTEMPTS));
        let refused = repeat(|| Err::<Option<()>, _>(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
