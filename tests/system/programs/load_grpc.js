// A load of k6 over gRPC: k6 run load_grpc.js, with ADDRESS, PROTOS, MODEL, ROW and
// ANSWER, its first number, in its environment.
import { check } from "k6";
import grpc from "k6/net/grpc";

const client = new grpc.Client();
client.load([__ENV.PROTOS], "open_inference.proto");
const contents = { fp32_contents: JSON.parse(__ENV.ROW) };
const sent = { name: "input", datatype: "FP32", shape: [1, 4], contents };

export const options = { vus: 4, iterations: 400 };

export default function () {
  if (__ITER === 0) {
    client.connect(__ENV.ADDRESS, { plaintext: true });
  }
  const asked = { model_name: __ENV.MODEL, inputs: [sent] };
  const answer = client.invoke("inference.GRPCInferenceService/ModelInfer", asked);
  check(answer, {
    status: ({ status }) => status === grpc.StatusOK,
    answer: ({ message }) =>
      Math.abs(message.outputs[0].contents.fp32Contents[0] - __ENV.ANSWER) < 1e-6,
  });
}

export const handleSummary = ({ metrics }) => ({ stdout: JSON.stringify(metrics.checks.values) });
