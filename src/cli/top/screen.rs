//! PURE. What `top` shows: its state → a screen of any size.

use anstream::adapter::strip_str;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, TableState, Wrap};

use super::model::{Rates, Top};
use crate::admin::protocol::{IntegrationStatus, Status};
use crate::cli::show::{self, BAD, GOOD, WARN, age, cell, number, printable, short_age};
use crate::cli::status::{causes, state};
use crate::clock::UnixMillis;

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Palette {
    Colour,
    /// `NO_COLOR` is set.
    Plain,
}

impl Palette {
    fn of(self, colour: Color) -> Style {
        match self {
            Palette::Colour => Style::new().fg(colour),
            Palette::Plain => Style::new(),
        }
    }

    fn serious(self, style: anstyle::Style) -> Style {
        if style == GOOD {
            self.of(Color::Green)
        } else if style == BAD {
            self.of(Color::Red).add_modifier(Modifier::BOLD)
        } else {
            self.of(Color::Yellow)
        }
    }
}

const KEYS: &str = " ↑↓ select   p pause   r resume   t retry now   ? help   q quit";
const HELP: &str = "\
 ↑ ↓, k j   select an integration
 p          pause it: events are taken, nothing is sent, also after a restart
 r          resume it
 t          have it try again at once instead of waiting
 ?          this help
 q          quit; the daemon goes on

 in, out    records that come in, and that leave the queue, a second
 pushes     pushes made a second: the pace follows what Ometria allows
 oldest     how long the oldest record has waited; after four hours Ometria
            starts no automation for it
 answers    the last statuses, the newest on the right; 202 is good";

/// Draws the screen, at `now`.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top, palette: Palette, now: UnixMillis) {
    let rows = u16::try_from(top.integrations().len()).unwrap_or(u16::MAX);
    // The table gets what it needs, as long as half of the screen is left for the causes.
    let table_rows = rows.saturating_add(1).min((frame.area().height / 2).max(3));
    let parts = [
        Constraint::Length(3),
        Constraint::Length(table_rows),
        Constraint::Min(0),
        Constraint::Length(1),
    ];
    let [head, table, below, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(top, palette, now)), head);
    draw_table(frame, table, top, palette);
    let below = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas::<2>(below)[1];
    if top.help {
        frame.render_widget(Paragraph::new(HELP), below);
    } else {
        frame.render_widget(Paragraph::new(details(top)).wrap(Wrap { trim: false }), below);
    }
    let note =
        if top.note.is_empty() { KEYS.to_owned() } else { format!(" {}", printable(&top.note)) };
    frame.render_widget(Paragraph::new(note).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

/// The daemon as a whole.
fn heading(top: &Top, palette: Palette, now: UnixMillis) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(status) = &top.status else {
        return vec![Line::styled(" pillarbox: no answer yet", bold)];
    };
    let mut first = vec![Span::styled(format!(" pillarbox {}", printable(&status.version)), bold)];
    first.push(Span::raw(format!(
        ", pid {}, up {}: ",
        status.pid,
        age(status.started_at.age(status.now))
    )));
    let mut trouble = Line::raw("");
    match (&top.lost, &status.refusing) {
        (Some((why, since)), _) => {
            first.push(Span::raw("?"));
            let gone = age(since.age(now));
            let text = format!(" NO ANSWER for {gone}, trying again: {}", printable(why));
            trouble = Line::styled(text, palette.serious(BAD));
        }
        (None, Some(reason)) => {
            first.push(Span::styled("refusing producers", palette.serious(BAD)));
            trouble = Line::styled(format!(" {}", printable(reason)), palette.serious(BAD));
        }
        (None, None) => {
            first.push(Span::styled("accepting", palette.serious(GOOD)));
            if status.erasure_waits {
                let text = " an erasure is not finished: `pillarbox status` says what to do";
                trouble = Line::styled(text, palette.serious(WARN));
            }
        }
    }
    vec![Line::from(first), Line::raw(sums(top, status)), trouble]
}

fn sums(top: &Top, status: &Status) -> String {
    let sum = |of: fn(&IntegrationStatus) -> u64| status.integrations.iter().map(of).sum::<u64>();
    let (records, bytes) = (sum(|it| it.lane.queued_records), sum(|it| it.lane.queued_bytes));
    let Rates { accepted, ended, .. } = top.sum();
    let free = status.disk_free.map_or_else(|| "?".to_owned(), show::bytes);
    format!(
        " in {}/s, out {}/s, queued {} ({}), quarantine {}, disk free {free}",
        rate(accepted),
        rate(ended),
        number(records),
        show::bytes(bytes),
        number(status.quarantined),
    )
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, top: &Top, palette: Palette) {
    let now = top.status.as_ref().map_or(UnixMillis(0), |status| status.now);
    let right = |text: String, width: usize| format!("{text:>width$}");
    let rows = top.integrations().iter().map(|known| {
        let (word, style) = state(known);
        let Rates { accepted, ended, pushes } = top.rates(&known.name);
        let oldest = known.lane.oldest_at.map(|at| short_age(at.age(now)));
        let answers: Vec<String> = top.answers(&known.name).map(|it| it.to_string()).collect();
        Row::new([
            Span::raw(format!(" {}", cell(&known.name, 13))),
            Span::styled(word, palette.serious(style)),
            Span::raw(right(number(known.lane.queued_records), 10)),
            Span::raw(right(oldest.unwrap_or_else(|| "-".to_owned()), 7)),
            Span::raw(right(rate(accepted), 6)),
            Span::raw(right(rate(ended), 6)),
            Span::raw(right(rate(pushes), 7)),
            Span::raw(format!(" {}", answers.join(" "))),
        ])
    });
    let widths = [14, 14, 10, 7, 6, 6, 7, 16].map(Constraint::Length);
    let names = [
        " integration".to_owned(),
        "state".to_owned(),
        right("queued".to_owned(), 10),
        right("oldest".to_owned(), 7),
        right("in/s".to_owned(), 6),
        right("out/s".to_owned(), 6),
        right("push/s".to_owned(), 7),
        " answers".to_owned(),
    ];
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(rows, widths)
        .header(header)
        .column_spacing(0)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut place = TableState::new().with_selected(Some(top.place()));
    frame.render_stateful_widget(table, area, &mut place);
}

/// What is to be known of the selected integration.
fn details(top: &Top) -> Vec<Line<'static>> {
    let (Some(known), Some(status)) = (top.selected(), &top.status) else {
        return vec![Line::raw(" no integration is configured")];
    };
    let (lane, report) = (&known.lane, &known.report);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let endpoint = known.endpoint.as_deref().unwrap_or("not configured any more");
    let mut lines = vec![
        Line::styled(format!(" {}  {}", printable(&known.name), printable(endpoint)), bold),
        Line::raw(format!(
            " delivered {}, quarantined {}, withheld {}, erased {}; pushes {}, retried {}",
            number(lane.delivered),
            number(lane.quarantined),
            number(lane.withheld),
            number(lane.erased),
            number(report.pushes),
            number(report.pushes_retried),
        )),
    ];
    if let Some(at) = report.last_delivery_at {
        lines.push(Line::raw(format!(" last delivery {} ago", age(at.age(status.now)))));
    }
    lines.push(Line::raw(""));
    let causes = causes(known, status.now);
    lines.extend(causes.iter().map(|cause| Line::raw(format!(" {}", strip_str(cause)))));
    lines
}

/// A rate in a few characters.
fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{rate:.1}"),
        ..100_000.0 => format!("{rate:.0}"),
        _ => format!("{:.0}k", rate / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    use super::*;
    use crate::cli::status::tests::{known, of};
    use crate::cli::top::model::Key;
    use crate::forward::State;

    fn top() -> Top {
        let mut uk = known(
            "uk",
            State::Unauthorized,
            "403: generate a Data API key with push access under Settings > API keys; a new key can take ten minutes to work",
        );
        uk.report.pushes = 7;
        let mut top = Top::default();
        top.update(Ok(of(vec![known("fr", State::Pushing, ""), uk])), UnixMillis(0));
        top.press(Key::Down);
        top
    }

    fn drawn(top: &Top, palette: Palette, (width, height): (u16, u16)) -> (Buffer, Vec<String>) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, top, palette, UnixMillis(9000))).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = (0..height).map(|y| {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        });
        let lines = lines.collect();
        (buffer, lines)
    }

    #[test]
    fn everything_fits_into_80_columns() {
        let (_, lines) = drawn(&top(), Palette::Plain, (80, 24));
        let text = lines.join("\n");
        for (line, expected) in [
            (0, " pillarbox 1, pid 7, up 1 h: accepting"),
            (1, " in 0/s, out 0/s, queued 2,469,134 (10.0 MiB), quarantine 0, disk free 3.0 GiB"),
            (3, " integration  state             queued oldest  in/s out/s push/s answers"),
            (5, " uk           unauthorized   1,234,567    1 h     0     0      0 403"),
        ] {
            assert_eq!(lines[line], expected, "{text}");
        }
        for part in [
            " uk  https://x/",
            "delivered 12,345,678",
            " uk: 403: generate a Data API key",
            "ten minutes to work; next try in 1 min",
            " ↑↓ select   p pause   r resume   t retry now   ? help   q quit",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn any_size_is_drawn_and_the_selected_row_is_seen() {
        let mut top = top();
        let many = (0..100).map(|n| known(&format!("shop-{n}"), State::Idle, "")).collect();
        top.update(Ok(of(many)), UnixMillis(0));
        (0..70).for_each(|_| drop(top.press(Key::Down)));
        for size in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
            let (_, lines) = drawn(&top, Palette::Colour, size);
            let seen = lines.iter().any(|line| line.contains("shop-71"));
            assert!(seen || size.1 < 10, "{size:?}: {lines:?}");
        }
        drawn(&Top::default(), Palette::Colour, (80, 24));
    }

    #[test]
    fn colours_are_left_out_when_they_are_not_wanted() {
        for (palette, any) in [(Palette::Colour, true), (Palette::Plain, false)] {
            let (buffer, _) = drawn(&top(), palette, (80, 24));
            let coloured = buffer.content().iter().any(|cell| cell.fg != Color::Reset);
            assert_eq!(coloured, any);
            let reversed =
                |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
            assert!(buffer.content().iter().any(reversed), "the selected row stands out");
        }
    }

    #[test]
    fn a_daemon_that_is_gone_or_refuses_is_told() {
        let mut gone = top();
        gone.update(Err("nobody answers \u{1b}[2J".into()), UnixMillis(4000));
        let (_, lines) = drawn(&gone, Palette::Plain, (80, 24));
        assert!(
            lines[2].contains(r"NO ANSWER for 5 s, trying again: nobody answers \u{1b}"),
            "{lines:?}"
        );
        let mut status = of(vec![known("uk", State::Idle, "")]);
        status.refusing = Some("the spool is full".into());
        let mut full = Top::default();
        full.update(Ok(status), UnixMillis(0));
        let (_, lines) = drawn(&full, Palette::Plain, (80, 24));
        assert!(lines[0].ends_with(": refusing producers"), "{lines:?}");
        assert_eq!(lines[2], " the spool is full");
        full.press(Key::Help);
        let (_, lines) = drawn(&full, Palette::Plain, (80, 24));
        assert!(lines.join("\n").contains("quit; the daemon goes on"), "{lines:?}");
    }

    #[test]
    fn an_erasure_that_waits_is_told() {
        let mut status = of(vec![known("uk", State::Idle, "")]);
        status.erasure_waits = true;
        let mut waiting = Top::default();
        waiting.update(Ok(status), UnixMillis(0));
        let (_, lines) = drawn(&waiting, Palette::Plain, (80, 24));
        assert!(lines[0].ends_with(": accepting"), "{lines:?}");
        assert!(
            lines[2].starts_with(" an erasure is not finished: `pillarbox status`"),
            "{lines:?}"
        );
    }

    #[test]
    fn rates_take_little_room() {
        let shown = [0.0, 0.25, 12.4, 99_999.0, 1_234_567.0].map(rate);
        assert_eq!(shown, ["0", "0.2", "12", "99999", "1235k"]);
    }
}
