//! The page of a report: well-formed, inert whatever the names are, and right in a real browser.
//!
//! The browser is Chromium (`apt-get install chromium`); says SKIPPED where there is none.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use msync_trace::{output::write_html, schema::Report};
use tempfile::TempDir;

const SAMPLES: [&str; 3] = ["database", "hostile", "nothing"];
/// What the names in hostile.json would do if they could.
const OWNED: &str = "document.title='owned'";
const BEACON: &str = "beacon.invalid";

fn report(sample: &str) -> Report {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report");
    let text = fs::read_to_string(folder.join(format!("{sample}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn page(sample: &str) -> String {
    let mut out = Vec::new();
    write_html(&report(sample), &TimeZone::UTC, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A start tag.
#[derive(Debug)]
struct Tag {
    name: String,
    attributes: BTreeMap<String, String>,
}

/// The elements of a page whose tags are well-formed: each is closed, in order.
fn elements(page: &str) -> Vec<Tag> {
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a bare >: {:?}", &rest[..at]);
        rest = &rest[at + 1..];
        if let Some(end) = rest.strip_prefix('/') {
            let (name, after) = end.split_once('>').unwrap();
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of order");
            rest = after;
            continue;
        }
        let name_end = rest.find([' ', '>', '/']).unwrap();
        let name = rest[..name_end].to_owned();
        rest = &rest[name_end..];
        let attributes = attributes(&mut rest);
        let closed = rest.starts_with('/');
        rest = rest.trim_start_matches('/').strip_prefix('>').unwrap();
        if name == "style" {
            rest = &rest[rest.find("</style>").unwrap()..];
        }
        if !closed && name != "meta" {
            open.push(name.clone());
        }
        found.push(Tag { name, attributes });
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    found
}

fn attributes(rest: &mut &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some(text) = rest.strip_prefix(' ') {
        let (name, value) = text.split_once("=\"").unwrap();
        let (value, after) = value.split_once('"').unwrap();
        assert!(!value.contains(['<', '>']), "{value:?}");
        assert!(found.insert(name.to_owned(), value.to_owned()).is_none());
        *rest = after;
    }
    found
}

#[test]
fn every_page_is_well_formed_and_its_links_lead_somewhere() {
    for sample in SAMPLES {
        let page = page(sample);
        let elements = elements(&page);
        let mut ids = BTreeSet::new();
        for tag in &elements {
            if let Some(id) = tag.attributes.get("id") {
                assert!(ids.insert(id.as_str()), "{sample}: {id} twice");
            }
        }
        for tag in &elements {
            for name in ["href", "aria-labelledby", "aria-describedby"] {
                let Some(value) = tag.attributes.get(name) else {
                    continue;
                };
                let target = value.strip_prefix('#').unwrap_or(value);
                assert!(ids.contains(target), "{sample}: {name} {value}");
                assert_eq!(name == "href", value.starts_with('#'), "{sample}: {value}");
            }
        }
    }
}

/// Nothing on the page can run, load or lead away.
#[test]
fn a_page_has_no_script_and_no_address() {
    for sample in SAMPLES {
        let page = page(sample);
        for tag in elements(&page) {
            let harmless = !matches!(
                tag.name.as_str(),
                "script"
                    | "link"
                    | "img"
                    | "image"
                    | "iframe"
                    | "object"
                    | "embed"
                    | "base"
                    | "form"
                    | "use"
                    | "foreignObject"
                    | "animate"
                    | "set"
            );
            assert!(harmless, "{sample}: {tag:?}");
            for name in tag.attributes.keys() {
                let inert = !name.starts_with("on")
                    && !matches!(
                        name.as_str(),
                        "src" | "srcset" | "style" | "action" | "xlink:href"
                    );
                assert!(inert, "{sample}: {tag:?}");
            }
        }
        assert!(
            !page
                .chars()
                .any(|c| c != '\n' && msync_trace::schema::is_unprintable(c))
        );
    }
}

/// Chromium as Debian and others call it.
fn chromium() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let programs = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    programs.into_iter().find(|program| program.is_file())
}

/// A browser that reaches nobody, with a profile of its own.
struct Browser {
    program: PathBuf,
    folder: TempDir,
}

impl Browser {
    /// The one of this machine, or why the test is skipped.
    fn find(test: &str) -> Option<Self> {
        let program = chromium();
        if program.is_none() {
            println!("SKIPPED {test}: Chromium is not installed (package chromium)");
        }
        Some(Self {
            program: program?,
            folder: tempfile::tempdir().unwrap(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens a page in the way that the flags say; what it says on standard output.
    fn open(&self, page: &str, flags: &[String]) -> String {
        let file = self.path("page.html");
        fs::write(&file, page).unwrap();
        let output = self.path("output");
        let mut child = Command::new(&self.program)
            .args([
                "--headless",
                "--disable-gpu",
                "--hide-scrollbars",
                "--no-first-run",
            ])
            // Tests run as root, where the sandbox refuses; the pages are ours.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND")
            .arg(format!(
                "--user-data-dir={}",
                self.path("profile").display()
            ))
            .args(flags)
            .arg(format!("file://{}", file.display()))
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(self.path("errors")).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("Chromium did not end by itself: {}", self.complaints());
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}: {}", self.complaints());
        String::from_utf8(fs::read(&output).unwrap()).unwrap()
    }

    fn complaints(&self) -> String {
        fs::read_to_string(self.path("errors")).unwrap_or_default()
    }

    fn screenshot(&self, page: &str, scheme: Scheme) -> Picture {
        let file = self.path("screenshot.png");
        self.open(
            page,
            &[
                "--window-size=1280,2200".to_owned(),
                format!("--screenshot={}", file.display()),
                format!("--blink-settings=preferredColorScheme={}", scheme as u8),
            ],
        );
        Picture::read(&file)
    }
}

/// As Blink counts them.
#[derive(Clone, Copy)]
enum Scheme {
    Dark = 0,
    Light = 1,
}

/// A screenshot: how often each colour is in it.
struct Picture {
    colours: BTreeMap<[u8; 3], u64>,
    pixels: u64,
}

impl Picture {
    fn read(file: &Path) -> Self {
        let reader = std::io::BufReader::new(File::open(file).unwrap());
        let mut reader = png::Decoder::new(reader).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        let mut colours: BTreeMap<[u8; 3], u64> = BTreeMap::new();
        // In runs of one colour: there are millions of pixels.
        let pixels: Vec<&[u8]> = bytes.chunks_exact(frame.color_type.samples()).collect();
        for run in pixels.chunk_by(|a, b| a == b) {
            *colours
                .entry([run[0][0], run[0][1], run[0][2]])
                .or_default() += run.len() as u64;
        }
        Self {
            colours,
            pixels: u64::from(frame.width) * u64::from(frame.height),
        }
    }

    fn count(&self, colour: u32) -> u64 {
        let [_, red, green, blue] = colour.to_be_bytes();
        self.colours.get(&[red, green, blue]).copied().unwrap_or(0)
    }

    /// From 0, black, to 255, white.
    fn brightness(&self) -> u64 {
        let sum: u64 = self
            .colours
            .iter()
            .map(|(colour, count)| colour.iter().map(|part| u64::from(*part)).sum::<u64>() * count)
            .sum();
        sum / 3 / self.pixels
    }
}

/// The colours of lost bytes and of calls that lied, as style.css has them for each scheme.
#[test]
fn a_browser_shows_the_picture_in_light_and_in_dark() {
    let Some(browser) = Browser::find("html screenshot") else {
        return;
    };
    let page = page("database");
    let light = browser.screenshot(&page, Scheme::Light);
    let dark = browser.screenshot(&page, Scheme::Dark);
    for (picture, lost, lied) in [(&light, 0xd55e00, 0x9c1f6b), (&dark, 0xef8330, 0xee7fc0)] {
        let most = picture.colours.values().max().unwrap();
        assert!(most * 100 < picture.pixels * 95, "nearly blank");
        assert!(
            picture.colours.len() > 100,
            "{} colours",
            picture.colours.len()
        );
        assert!(
            picture.count(lost) > 1000,
            "no lost bytes: {}",
            picture.count(lost)
        );
        assert!(
            picture.count(lied) > 300,
            "no false success: {}",
            picture.count(lied)
        );
    }
    assert!(light.brightness() > 225, "{}", light.brightness());
    assert!(dark.brightness() < 60, "{}", dark.brightness());
}

#[test]
fn hostile_names_are_text_to_a_browser() {
    let Some(browser) = Browser::find("html hostile names") else {
        return;
    };
    let log = browser.path("net.json");
    let flags = [
        "--dump-dom".to_owned(),
        format!("--log-net-log={}", log.display()),
    ];
    let requested = || String::from_utf8_lossy(&fs::read(&log).unwrap()).contains(BEACON);

    // What the names would do: without this, the rest would prove nothing.
    let trap =
        format!("<title>x</title><script>{OWNED}</script><img src=\"http://{BEACON}/x.png\">");
    assert!(browser.open(&trap, &flags).contains("<title>owned</title>"));
    assert!(requested());

    let dom = browser.open(&page("hostile"), &flags);
    assert!(dom.contains("<title>msync-trace report: 48 KiB lost silently in 12 files</title>"));
    assert!(!requested());
    for inert in [
        "&lt;script&gt;document.title='owned'&lt;/script&gt;",
        "&lt;/title&gt;&lt;/style&gt;&lt;/svg&gt;&lt;script&gt;",
        "/data/caf\\xe9line one\\nline two\\x0d\\x09\\x1b[31mred\\x07",
        "turned \\xe2\\x80\\xaegnp.exe\\xe2\\x81\\xa6 around\\xe2\\x80\\x8f",
    ] {
        assert!(dom.contains(inert), "{inert}");
    }
    assert!(!dom.contains("<script") && !dom.contains("<img"));
}

/// On paper nothing is folded: the tables take two pages more than the rest.
#[test]
fn a_page_prints_with_everything_open() {
    let Some(browser) = Browser::find("html print") else {
        return;
    };
    let file = browser.path("print.pdf");
    let flag = format!("--print-to-pdf={}", file.display());
    let flags = [flag, "--no-pdf-header-footer".to_owned()];
    browser.open(&page("database"), &flags);
    let pdf = fs::read(file).unwrap();
    assert!(pdf.starts_with(b"%PDF-"));
    let mark = b"/Type /Page\n";
    let pages = pdf.windows(mark.len()).filter(|bytes| bytes == mark);
    let pages = pages.count();
    assert!(pages >= 6, "{pages} pages: are the tables folded?");
}
