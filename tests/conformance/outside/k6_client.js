// Unary calls, and one stream, as a load test written for k6 makes them.
//
//     k6 run -e ADDRESS=127.0.0.1:50051 k6_client.js

import { check } from "k6";
import { Client, StatusOK, Stream } from "k6/net/grpc";

export const options = { vus: 5, iterations: 50, thresholds: { checks: ["rate==1"] } };

const client = new Client();
client.load([".."], "interop.proto");

export default function () {
  client.connect(__ENV.ADDRESS, { plaintext: true });
  const unary = client.invoke("grpc.testing.TestService/UnaryCall", { response_size: 9 });
  check(unary, { unary: (answer) => answer.status === StatusOK && answer.message.payload.body.length === 12 });

  const stream = new Stream(client, "grpc.testing.TestService/FullDuplexCall");
  let messages = 0;
  stream.on("data", () => messages++);
  stream.on("end", () => {
    check(messages, { "messages of a stream": (count) => count === 2 });
    client.close();
  });
  stream.write({ response_parameters: [{ size: 3 }, { size: 4 }] });
  stream.end();
}
