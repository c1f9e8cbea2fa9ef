// A load of k6: k6 run load.js, with URL, BODY and REPLY in its environment. Prints its checks.
import { check } from "k6";
import http from "k6/http";

const MOST = 1e-6; // a row's last digits may differ with those that share its batch
const expected = numbers(JSON.parse(__ENV.REPLY));

export const options = { vus: 4, iterations: 400 };

function numbers({ predictions }) {
  return predictions.flatMap(({ probabilities }) => Object.values(probabilities));
}

export default function () {
  const headers = { "Content-Type": "application/json" };
  const reply = http.post(`${__ENV.URL}/predict`, __ENV.BODY, { headers });
  check(reply, {
    status: ({ status }) => status === 200,
    protocol: ({ proto }) => proto === "HTTP/1.1",
    answer: ({ body }) => {
      const got = numbers(JSON.parse(body)); // k6's own json() gives keys in any order
      return expected.every((each, place) => Math.abs(got[place] - each) < MOST);
    },
  });
}

export const handleSummary = ({ metrics }) => ({ stdout: JSON.stringify(metrics.checks.values) });
