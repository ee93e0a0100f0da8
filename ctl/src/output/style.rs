//! How much room and which means there are for showing something.

/// Bold, for titles (ECMA-48, SGR 1).
const BOLD: &str = "\u{1b}[1m";
/// Back to the terminal's own (SGR 0).
const PLAIN: &str = "\u{1b}[0m";

/// The colours that tell things apart: red to cyan (ECMA-48, SGR 31 to 36).
const COLOURS: [u8; 6] = [31, 32, 33, 34, 35, 36];

/// Room and means. Without a terminal there is all room, and no colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether colours and bold type may be used.
    pub colour: bool,
    /// The room in characters; `None` when there is no limit.
    pub width: Option<usize>,
}

impl Style {
    /// A title, which stands out if that is possible.
    pub fn title(self, text: &str) -> String {
        if self.colour { format!("{BOLD}{text}{PLAIN}") } else { text.to_owned() }
    }

    /// Something that belongs to the thing with this number, in its colour if
    /// there are any; they repeat.
    pub fn tint(self, number: usize, text: &str) -> String {
        let colour = COLOURS[number % COLOURS.len()];
        if self.colour { format!("\u{1b}[{colour}m{text}{PLAIN}") } else { text.to_owned() }
    }

    /// Whether a table with lines this long finds room.
    pub fn has_room_for(self, line: usize) -> bool {
        self.width.is_none_or(|width| line <= width)
    }
}
