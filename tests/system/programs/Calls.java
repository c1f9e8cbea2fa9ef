import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;

/**
 * Calls /predict with java.net.http.HttpClient, which offers HTTP/2 with each request, with
 * HttpURLConnection and, if asked to, with a Socket whose output it shuts down:
 * java Calls.java URL [socket] < BODY
 *
 * <p>Prints a line for each reply: way, status and body, with tabs between them.
 */
class Calls {
    static URI uri;
    static byte[] body;

    public static void main(String[] arguments) throws Exception {
        uri = URI.create(arguments[0] + "/predict");
        body = System.in.readAllBytes();
        HttpClient client = HttpClient.newHttpClient();
        BodyPublisher chunks = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body));
        for (int i = 0; i < 3; i++) {
            say("HttpClient", client.send(request(length()).build(), BodyHandlers.ofString()));
        }
        say("HttpClient, in chunks", client.send(request(chunks).build(), BodyHandlers.ofString()));
        HttpRequest announced = request(length()).expectContinue(true).build();
        say("HttpClient, announced", client.send(announced, BodyHandlers.ofString()));
        List<CompletableFuture<HttpResponse<String>>> several =
                Stream.generate(() -> client.sendAsync(request(length()).build(), BodyHandlers.ofString()))
                        .limit(16)
                        .toList();
        for (CompletableFuture<HttpResponse<String>> each : several) {
            say("HttpClient, several at once", each.get());
        }
        for (int i = 0; i < 2; i++) {
            urlConnection(false);
            urlConnection(true);
        }
        if (arguments.length > 1 && arguments[1].equals("socket")) {
            socket();
        }
    }

    static BodyPublisher length() {
        return BodyPublishers.ofByteArray(body);
    }

    static HttpRequest.Builder request(BodyPublisher publisher) {
        return HttpRequest.newBuilder(uri).header("Content-Type", "application/json").POST(publisher);
    }

    static void say(String way, HttpResponse<String> reply) {
        say(way, reply.statusCode(), reply.body());
    }

    static void say(String way, int status, String reply) {
        System.out.println(way + "\t" + status + "\t" + reply);
    }

    static void urlConnection(boolean inChunks) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setRequestProperty("Content-Type", "application/json");
        connection.setDoOutput(true);
        if (inChunks) {
            connection.setChunkedStreamingMode(0);
        } else {
            connection.setFixedLengthStreamingMode(body.length);
        }
        try (OutputStream output = connection.getOutputStream()) {
            output.write(body);
        }
        try (InputStream input = connection.getInputStream()) {
            String way = "HttpURLConnection" + (inChunks ? ", in chunks" : "");
            say(way, connection.getResponseCode(), new String(input.readAllBytes()));
        }
    }

    static void socket() throws IOException {
        String head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n".formatted(body.length);
        try (Socket socket = new Socket(uri.getHost(), uri.getPort())) {
            OutputStream output = socket.getOutputStream();
            output.write(head.getBytes());
            output.write(body);
            output.flush();
            socket.shutdownOutput();
            String reply = new String(socket.getInputStream().readAllBytes());
            String status = reply.isEmpty() ? "0" : reply.split(" ")[1];
            say("Socket", Integer.parseInt(status), reply.substring(reply.indexOf("\r\n\r\n") + 4));
        }
    }
}
