// A Signalbox device with HttpClient alone: commands as server-sent events, reports by PUT. .NET 8, no packages.
//   SIGNALBOX_CLIENT_ID=pda-7 SIGNALBOX_CLIENT_KEY=sbk_... dotnet run
// The short form: it remembers the ids that it began in one file, and what it began and did not finish is outcome_unknown.
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;

var clientId = Environment.GetEnvironmentVariable("SIGNALBOX_CLIENT_ID")!;
var api = (Environment.GetEnvironmentVariable("SIGNALBOX_URL") ?? "http://127.0.0.1:3000") + "/api";
using var http = new HttpClient { Timeout = Timeout.InfiniteTimeSpan };
http.DefaultRequestHeaders.Authorization =
    new AuthenticationHeaderValue("Bearer", Environment.GetEnvironmentVariable("SIGNALBOX_CLIENT_KEY"));

// One directory is the journal: its name-file names it, and each (id, attempt) has a file with its last report.
var journal = Directory.CreateDirectory($"{clientId}.journal").FullName;
var nameFile = Path.Combine(journal, "journal-id");
if (!File.Exists(nameFile)) Keep(nameFile, Guid.NewGuid().ToString());
var journalId = File.ReadAllText(nameFile);

foreach (var file in Directory.GetFiles(journal, "*.json"))
{
    var report = JsonDocument.Parse(File.ReadAllText(file)).RootElement;
    var (id, attempt) = (Path.GetFileName(file).Split('+')[0], report.GetProperty("attempt").GetInt32());
    // Begun and not finished: it may have happened. Never guess.
    if (report.GetProperty("status").GetString() == "running")
        Keep(file, JsonSerializer.Serialize(new { status = "outcome_unknown", attempt }));
    await Report(id, File.ReadAllText(file)); // one too many changes nothing
}

_ = Task.Run(async () =>
{
    for (; ; await Task.Delay(20_000)) // online: an open stream and a ping within 30 s
        try { await http.PostAsJsonAsync($"{api}/clients/{clientId}/ping", new { state = "online", version = "1.0", journalId }); }
        catch (HttpRequestException) { } // the stream will notice too
});

for (; ; await Task.Delay(1000))
{
    try
    {
        // The journal is named in the address: the server must know it before it hands anything over.
        using var stream = await http.GetStreamAsync($"{api}/events/{clientId}?journalId={journalId}");
        using var reader = new StreamReader(stream);
        for (; ; )
        {
            // A comment comes every 15 s: 45 s of silence are a dead connection.
            using var silence = new CancellationTokenSource(TimeSpan.FromSeconds(45));
            var line = await reader.ReadLineAsync(silence.Token);
            if (line is null) break;
            if (line.StartsWith("data:")) await Take(JsonDocument.Parse(line[5..]).RootElement);
        }
    }
    catch (Exception error) when (error is HttpRequestException or IOException or OperationCanceledException)
    {
        Console.Error.WriteLine(error.Message); // 401: bad key, 403: disabled or not this client
    }
}

// One message after the other: a cancel is read after what runs has ended, and is answered with its outcome.
async Task Take(JsonElement message)
{
    var id = message.GetProperty("id").GetString()!;
    var attempt = message.GetProperty("attempt").GetInt32();
    var file = Path.Combine(journal, $"{id}+{attempt}.json");
    if (!File.Exists(file))
    {
        if (Before(id, attempt) is { } outcome) Keep(file, outcome);
        else if (message.GetProperty("type").GetString() == "cancel")
        {
            var own = message.TryGetProperty("journalId", out var asked) && asked.GetString() == journalId;
            Keep(file, JsonSerializer.Serialize(new { status = own ? "cancelled" : "outcome_unknown", attempt }));
        }
        else
        {
            // Kept, then told: the first report takes the place of the PUBACK.
            var began = JsonSerializer.Serialize(new { status = "running", attempt });
            Keep(file, began);
            await Report(id, began);
            Keep(file, Perform(message, attempt));
        }
    }
    await Report(id, File.ReadAllText(file)); // sent again: never run again, but told again
}

// An older attempt that completed, or may have, is the answer for the id.
string? Before(string id, int attempt)
{
    var older = Enumerable.Range(1, attempt - 1).Select(n => Path.Combine(journal, $"{id}+{n}.json")).Where(File.Exists)
        .Select(file => JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(File.ReadAllText(file))!)
        .FirstOrDefault(report => report["status"].GetString() == "completed");
    if (older is null) return null;
    older["attempt"] = JsonSerializer.SerializeToElement(attempt);
    return JsonSerializer.Serialize(older);
}

static string Perform(JsonElement command, int attempt)
{
    try
    {
        switch (command.GetProperty("action").GetString())
        {
            case "pick":
                File.AppendAllText("picked.log", command.GetProperty("payload") + "\n");
                return JsonSerializer.Serialize(new { status = "completed", attempt, result = new { picked = 1 } });
            default:
                var error = new { code = "UNKNOWN_ACTION", message = "this device does not do that" };
                return JsonSerializer.Serialize(new { status = "rejected", attempt, error });
        }
    }
    catch (Exception failure)
    {
        var error = new { code = failure.GetType().Name, message = failure.Message };
        return JsonSerializer.Serialize(new { status = "failed", attempt, error });
    }
}

async Task Report(string id, string report)
{
    for (; ; await Task.Delay(1000))
    {
        try
        {
            using var body = new StringContent(report, MediaTypeHeaderValue.Parse("application/json"));
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(30));
            var answer = await http.PutAsync($"{api}/commands/{id}/status", body, limit.Token);
            // 2xx: committed. 400, 404, 413: understood and of no use. Anything else: again.
            if (answer.IsSuccessStatusCode || (int)answer.StatusCode is 400 or 404 or 413) return;
        }
        catch (Exception error) when (error is HttpRequestException or OperationCanceledException)
        {
            Console.Error.WriteLine(error.Message);
        }
    }
}

// Written beside, flushed, renamed: after a power cut there is the whole file or none.
static void Keep(string file, string text)
{
    using (var written = new FileStream(file + ".new", FileMode.Create))
    {
        written.Write(System.Text.Encoding.UTF8.GetBytes(text));
        written.Flush(flushToDisk: true);
    }
    File.Move(file + ".new", file, overwrite: true);
}
