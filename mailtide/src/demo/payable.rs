//! What is downstream: the accounts payable consumer of `examples/`, and one invoice that reaches every mailbox.

use std::time::{Duration, Instant};

use accounts_payable::{Invoice, Settings as Consumer};
use anyhow::Context;
use kafka::topics::{Topic, Topics};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use crate::output;
use crate::settings::Settings;

/// How long the invoice is waited for. It is read after all that came before it in its mailbox, at the pace of Gmail's
/// quota, so with much mail it is not there yet, and that is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at the table.
const LOOK: Duration = Duration::from_millis(200);

/// A supplier's mail, the same in every mailbox.
pub(super) const MAIL: &str = "From: Supplier Ltd <billing@supplier.example>\r\nTo: ap@acme.example\r\n\
    Subject: Invoice 4711\r\nDate: Tue, 3 Feb 2026 04:05:06 +0000\r\nMessage-ID: <4711@supplier.example>\r\n\
    MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
    Please pay.\r\n--b\r\nContent-Type: application/pdf; name=\"invoice-4711.pdf\"\r\n\
    Content-Disposition: attachment; filename=\"invoice-4711.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n\
    JVBERi0=\r\n--b--\r\n";

/// The subject of [`MAIL`].
const SUBJECT: &str = "Invoice 4711";

/// The consumer, at work until it is dropped.
pub(super) struct Payable {
    settings: Consumer,
    consumer: JoinHandle<anyhow::Result<()>>,
}

impl Payable {
    /// Starts the consumer on the demo's own topics and database.
    pub(super) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let url = settings.store.url.as_ref().context("the demo has a database")?;
        let settings = Consumer {
            bootstrap_servers: settings.kafka.bootstrap_servers.clone(),
            topic: Topics::new(&settings.kafka.topic_prefix).name(Topic::Fetched).to_string(),
            group: format!("{}accounts-payable", settings.kafka.topic_prefix),
            database_url: url.expose_secret().to_owned(),
            schema: settings.store.schema.clone(),
            // The demo's topics come and go; nothing of them is registered anywhere.
            registry: registry::Settings { url: None, ..settings.registry.clone() },
        };
        let consumer = tokio::spawn({
            let settings = settings.clone();
            async move { accounts_payable::run(&settings).await }
        });
        Ok(Self { settings, consumer })
    }

    /// Waits a while for the invoice to come from this many mailboxes, and prints the table.
    pub(super) async fn show(&mut self, mailboxes: usize) -> anyhow::Result<()> {
        println!("\nOne invoice was sent to {mailboxes} mailbox(es); waiting for accounts payable to have it");
        let begun = Instant::now();
        let invoices = loop {
            if self.consumer.is_finished() {
                let ended = (&mut self.consumer).await.context("the consumer panicked")?;
                ended.context("the accounts payable consumer ended")?;
            }
            // Its tables are not there before its first look at the topic.
            let invoices = accounts_payable::invoices(&self.settings).await.unwrap_or_default();
            let is_ours = |invoice: &&Invoice| invoice.subject.as_deref() == Some(SUBJECT);
            if invoices.iter().find(is_ours).is_some_and(|invoice| invoice.mails >= mailboxes) {
                break invoices;
            }
            if begun.elapsed() > PATIENCE {
                println!(
                    "\nThe invoice came last and waits its turn: Gmail's quota lets a mailbox's mail be read at a few \
                     messages a second, in order. Accounts payable has so far:"
                );
                break invoices;
            }
            tokio::time::sleep(LOOK).await;
        };
        let mut table = output::table(["invoice", "from", "files", "mails", "to do"]);
        for Invoice { sender, subject, files, mails, needs_review } in invoices {
            let to_do = if needs_review { "look, then pay" } else { "pay" };
            let text = |text: Option<String>| text.unwrap_or_default();
            table.add_row([text(subject), text(sender), files.join(", "), mails.to_string(), to_do.to_owned()]);
        }
        println!("What accounts payable has (examples/accounts-payable):");
        println!("{table}");
        Ok(())
    }
}

impl Drop for Payable {
    fn drop(&mut self) {
        self.consumer.abort();
    }
}
