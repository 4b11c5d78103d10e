//! datetime.strftime in the C locale, for a naive local time given as seconds.

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

struct Civil {
    year: i64,
    month: i64,    // 1 to 12
    day: i64,      // 1 to 31
    weekday: i64,  // 0 is Sunday
    year_day: i64, // 1 to 366
    hour: i64,
    minute: i64,
    second: i64,
}

/// `seconds` counts from 1970-01-01T00:00:00 on the local clock.
pub fn strftime(format: &str, seconds: i64) -> String {
    let civil = civil(seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            None => out.push('%'),
            Some('-') => match chars.next() {
                Some(d) => out.push_str(unpadded(&directive(d, &civil, seconds))),
                None => out.push_str("%-"),
            },
            Some(d) => out.push_str(&directive(d, &civil, seconds)),
        }
    }
    out
}

/// glibc's "%-d"
fn unpadded(text: &str) -> &str {
    let trimmed = text.trim_start_matches(['0', ' ']);
    if trimmed.is_empty() {
        &text[text.len().saturating_sub(1)..]
    } else {
        trimmed
    }
}

fn directive(d: char, t: &Civil, seconds: i64) -> String {
    let again = |format: &str| strftime(format, seconds);
    let hour12 = (t.hour + 11) % 12 + 1;
    let monday = (t.weekday + 6) % 7;
    match d {
        'a' => DAYS[t.weekday as usize][..3].to_string(),
        'A' => DAYS[t.weekday as usize].to_string(),
        'b' | 'h' => MONTHS[t.month as usize - 1][..3].to_string(),
        'B' => MONTHS[t.month as usize - 1].to_string(),
        'c' => again("%a %b %e %H:%M:%S %Y"),
        'C' => format!("{:02}", t.year.div_euclid(100)),
        'd' => format!("{:02}", t.day),
        'D' | 'x' => again("%m/%d/%y"),
        'e' => format!("{:2}", t.day),
        'f' => "000000".to_string(),
        'F' => again("%Y-%m-%d"),
        'G' => iso_week(t).0.to_string(),
        'g' => format!("{:02}", iso_week(t).0.rem_euclid(100)),
        'H' => format!("{:02}", t.hour),
        'I' => format!("{hour12:02}"),
        'j' => format!("{:03}", t.year_day),
        'k' => format!("{:2}", t.hour),
        'l' => format!("{hour12:2}"),
        'm' => format!("{:02}", t.month),
        'M' => format!("{:02}", t.minute),
        'n' => "\n".to_string(),
        'p' => if t.hour < 12 { "AM" } else { "PM" }.to_string(),
        'P' => if t.hour < 12 { "am" } else { "pm" }.to_string(),
        'r' => again("%I:%M:%S %p"),
        'R' => again("%H:%M"),
        's' => seconds.to_string(),
        'S' => format!("{:02}", t.second),
        't' => "\t".to_string(),
        'T' | 'X' => again("%H:%M:%S"),
        'u' => (monday + 1).to_string(),
        'U' => format!("{:02}", (t.year_day + 6 - t.weekday) / 7),
        'V' => format!("{:02}", iso_week(t).1),
        'w' => t.weekday.to_string(),
        'W' => format!("{:02}", (t.year_day + 6 - monday) / 7),
        'y' => format!("{:02}", t.year.rem_euclid(100)),
        'Y' => t.year.to_string(),
        'z' | 'Z' => String::new(), // a naive time has no zone
        '%' => "%".to_string(),
        other => format!("%{other}"),
    }
}

fn civil(seconds: i64) -> Civil {
    let days = seconds.div_euclid(86400);
    let rest = seconds.rem_euclid(86400);
    // Years counted from March, in eras of 400 years (146097 days), so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    let leap_day = i64::from(month > 2 && is_leap(year));
    Civil {
        year,
        month,
        day,
        weekday: (days + 4).rem_euclid(7),
        year_day: before + day + leap_day,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// ISO 8601 year and week: weeks start on Monday, week 1 has the year's first Thursday.
fn iso_week(t: &Civil) -> (i64, i64) {
    let monday = (t.weekday + 6) % 7;
    let week = (t.year_day - 1 - monday + 10) / 7;
    if week < 1 {
        return (t.year - 1, weeks_in(t.year - 1));
    }
    if week > weeks_in(t.year) {
        return (t.year + 1, 1);
    }
    (t.year, week)
}

fn weeks_in(year: i64) -> i64 {
    let weekday_of_dec31 =
        |y: i64| (y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400)).rem_euclid(7);
    if weekday_of_dec31(year) == 4 || weekday_of_dec31(year - 1) == 3 {
        53
    } else {
        52
    }
}
