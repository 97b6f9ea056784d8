//! What librdkafka says of itself every few seconds, as metrics.

use rdkafka::Statistics;

use crate::metrics as names;

/// How often it says so, in milliseconds, where the pass-through properties do not say otherwise.
pub(crate) const INTERVAL_MS: &str = "15000";

/// Takes over what a client tells. The client is named by its role, the broker by its id: both are few.
pub(crate) fn record(told: &Statistics) {
    let client = told.client_id.clone();
    metrics::gauge!(names::QUEUE_RECORDS.name, "client" => client.clone()).set(told.msg_cnt as f64);
    metrics::gauge!(names::QUEUE_BYTES.name, "client" => client.clone()).set(told.msg_size as f64);
    let mut connected = 0_u32;
    // Brokers that are only known by an address, and the coordinators' own connections, have no id.
    for broker in told.brokers.values().filter(|broker| broker.nodeid >= 0) {
        connected += u32::from(broker.state == "UP");
        let labels = [("client", client.clone()), ("broker", broker.nodeid.to_string())];
        metrics::counter!(names::BROKER_TIMEOUTS.name, &labels).absolute(broker.req_timeouts);
        metrics::counter!(names::BROKER_ERRORS.name, &labels).absolute(broker.txerrs + broker.rxerrs);
        if let Some(rtt) = &broker.rtt {
            let seconds = rtt.p99 as f64 / 1_000_000.0;
            metrics::gauge!(names::BROKER_ROUND_TRIP.name, &labels).set(seconds);
        }
    }
    metrics::gauge!(names::BROKERS_CONNECTED.name, "client" => client).set(connected);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_becomes_few_series() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let broker = |nodeid: i32, state: &str| {
            let told = serde_json::json!({
                "name": "b", "nodeid": nodeid, "nodename": "", "source": "", "state": state, "stateage": 0,
                "outbuf_cnt": 0, "outbuf_msg_cnt": 0, "waitresp_cnt": 0, "waitresp_msg_cnt": 0, "tx": 0, "txbytes": 0,
                "txerrs": 2, "txretries": 0, "txidle": 0, "req_timeouts": 3, "rx": 0, "rxbytes": 0, "rxerrs": 1,
                "rxcorriderrs": 0, "rxpartial": 0, "rxidle": 0, "req": {}, "zbuf_grow": 0, "buf_grow": 0,
                "toppars": {}
            });
            serde_json::from_value(told).unwrap()
        };
        let told = Statistics {
            client_id: "mailtide-poller-0".to_owned(),
            msg_cnt: 7,
            brokers: [("a".to_owned(), broker(1, "UP")), ("b".to_owned(), broker(-1, "UP"))].into(),
            ..Statistics::default()
        };
        metrics::with_local_recorder(&recorder, || record(&told));
        let text = recorder.handle().render();
        for line in [
            r#"mailtide_kafka_queue_records{client="mailtide-poller-0"} 7"#,
            r#"mailtide_kafka_brokers_connected{client="mailtide-poller-0"} 1"#,
            r#"mailtide_kafka_broker_timeouts_total{client="mailtide-poller-0",broker="1"} 3"#,
            r#"mailtide_kafka_broker_errors_total{client="mailtide-poller-0",broker="1"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"broker="-1""#), "{text}");
    }
}
