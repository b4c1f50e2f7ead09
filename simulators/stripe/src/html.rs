//! Pages without scripts: text in, escaped text out.

/// Text that is safe within an element and within an attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A page of this title; the body is HTML.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>body{{font:16px sans-serif;max-width:32em;margin:2em auto;padding:0 1em}}\
         table{{width:100%}}td:last-child{{text-align:right}}button{{font:inherit;padding:.5em 1em;margin:.25em}}.error{{color:#b00}}</style></head>\
         <body><p><strong>Simulated Stripe</strong>: no money moves.</p><h1>{title}</h1>{body}</body></html>"
    )
}

/// What went wrong, to be read aloud at once.
pub(crate) fn alert(message: &str) -> String {
    format!("<p class=\"error\" role=\"alert\">{}</p>", escaped(message))
}

/// A form of one button that sends a value.
pub(crate) fn button(action: &str, name: &str, value: &str, label: &str) -> String {
    let [action, name, value, label] = [action, name, value, label].map(escaped);
    format!("<form method=\"post\" action=\"{action}\"><button name=\"{name}\" value=\"{value}\">{label}</button></form>")
}
