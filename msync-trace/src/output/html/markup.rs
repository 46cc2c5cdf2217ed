//! HTML and SVG, written so that nothing from outside can become markup: what is not in the source
//! code is escaped, in text and in attributes alike.

use crate::output::escape;

/// A page in the making.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
}

/// Attributes of an element: names from the source code, values from anywhere.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    /// What was written.
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// How much was written, in bytes.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Markup from the source code.
    pub(super) fn raw(&mut self, markup: &'static str) {
        self.out.push_str(markup);
    }

    /// Text.
    pub(super) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c => self.out.push(c),
            }
        }
    }

    /// An element and what is in it.
    pub(super) fn element(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.open(tag, attributes);
        self.out.push('>');
        inside(self);
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
    }

    /// An element with text in it.
    pub(super) fn leaf(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(tag, attributes, |page| page.text(text));
    }

    /// An SVG element with nothing in it.
    pub(super) fn shape(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.open(tag, attributes);
        self.out.push_str("/>");
    }

    /// A name that may hold anything: printable, on one line, its direction kept to itself, and
    /// with places to break it.
    pub(super) fn name(&mut self, name: &[u8]) {
        self.leaf("bdi", &[("class", "name")], &escape(name));
    }

    fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.text(value);
            self.out.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_text() {
        let mut page = Markup::default();
        let name = b"</bdi><script>alert('1')</script>\n\"&\xff\xe2\x80\xae";
        page.element("p", &[("title", "\"><img onerror=x>")], |page| {
            page.name(name);
        });
        assert_eq!(
            page.finish(),
            "<p title=\"&quot;&gt;&lt;img onerror=x&gt;\"><bdi class=\"name\">\
             &lt;/bdi&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\
             \\n&quot;&amp;\\xff\\xe2\\x80\\xae</bdi></p>"
        );
    }
}
