//! What a certificate may be used for, which rustls tells of no authority's.

/// `extKeyUsage`, `serverAuth` and `anyExtendedKeyUsage` (RFC 5280, 4.2.1.12).
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

const SEQUENCE: u8 = 0x30;
/// The context-specific tag of a certificate's extensions (RFC 5280, 4.1).
const EXTENSIONS: u8 = 0xa3;

/// Whether a server may show this certificate (DER): its extended key usage says so, or it
/// has none. What cannot be read may not.
pub(super) fn may_be_a_server(certificate: &[u8]) -> bool {
    extended_key_usage(certificate).is_some_and(|usages| match usages {
        Some(usages) => usages.iter().any(|it| [SERVER_AUTH, ANY_USAGE].contains(it)),
        None => true,
    })
}

/// The object identifiers of the usages; `Some(None)` without the extension.
fn extended_key_usage(certificate: &[u8]) -> Option<Option<Vec<&[u8]>>> {
    let signed = children(single(certificate, SEQUENCE)?)?;
    let fields = children(signed.first().filter(|it| it.tag == SEQUENCE)?.content)?;
    let Some(extensions) = fields.iter().find(|it| it.tag == EXTENSIONS) else {
        return Some(None);
    };
    for extension in children(single(extensions.content, SEQUENCE)?)? {
        let parts = children(extension.content)?;
        if parts.first()?.content == EXTENDED_KEY_USAGE {
            let usages = children(single(parts.last()?.content, SEQUENCE)?)?;
            return Some(Some(usages.iter().map(|it| it.content).collect()));
        }
    }
    Some(None)
}

/// One value of DER (X.690).
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

/// The content of the one value there is.
fn single(der: &[u8], tag: u8) -> Option<&[u8]> {
    match children(der)?.as_slice() {
        [only] if only.tag == tag => Some(only.content),
        _ => None,
    }
}

/// The values that follow one another; `None` where the bytes are not whole values.
fn children(mut der: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while let [tag, rest @ ..] = der {
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length)?;
        found.push(Element { tag: *tag, content });
        der = rest;
    }
    Some(found)
}

/// A length, of at most four bytes, and what follows it.
fn length(der: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = der.split_first()?;
    if first < 0x80 {
        return Some((first.into(), rest));
    }
    let (bytes, rest) = rest.split_at_checked((first & 0x7f).into())?;
    let is_short = (1..=4).contains(&bytes.len());
    let length = bytes.iter().fold(0, |length: usize, &byte| length << 8 | usize::from(byte));
    is_short.then_some((length, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length: Vec<u8> = match content.len() {
            short @ ..0x80 => vec![short as u8],
            long => vec![0x82, (long >> 8) as u8, long as u8],
        };
        [&[tag], &length[..], content].concat()
    }

    /// As much of a certificate as is looked at.
    fn certificate(extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = value(EXTENSIONS, &value(SEQUENCE, &extensions.concat()));
        let name = value(SEQUENCE, &[0; 200]);
        let signed = value(SEQUENCE, &[value(2, &[1]), name, extensions].concat());
        value(SEQUENCE, &[signed, value(SEQUENCE, &[]), value(3, &[0; 64])].concat())
    }

    fn usage(usages: &[&[u8]]) -> Vec<u8> {
        let usages: Vec<u8> = usages.iter().flat_map(|it| value(6, it)).collect();
        let critical = value(1, &[0xff]);
        let held = value(4, &value(SEQUENCE, &usages));
        value(SEQUENCE, &[value(6, EXTENDED_KEY_USAGE), critical, held].concat())
    }

    #[test]
    fn a_usage_that_is_given_must_be_a_servers() {
        let client_auth: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
        let other = value(SEQUENCE, &[value(6, &[0x55, 0x1d, 0x13]), value(4, &[])].concat());
        assert!(may_be_a_server(&certificate(&[])));
        assert!(may_be_a_server(&certificate(std::slice::from_ref(&other))));
        assert!(may_be_a_server(&certificate(&[other, usage(&[client_auth, SERVER_AUTH])])));
        assert!(may_be_a_server(&certificate(&[usage(&[ANY_USAGE])])));
        assert!(!may_be_a_server(&certificate(&[usage(&[client_auth])])));
        assert!(!may_be_a_server(&certificate(&[usage(&[])])));
    }

    #[test]
    fn what_is_cut_off_is_of_no_use() {
        let whole = certificate(&[usage(&[SERVER_AUTH])]);
        for end in 0..whole.len() {
            assert!(!may_be_a_server(&whole[..end]), "{end}");
        }
    }
}
