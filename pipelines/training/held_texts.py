"""Questions and answers that no training sees: on them an exported model is compared with what was trained.

`export_check.py` reads them. They differ in language, script and subject, since a mistake in a tokenizer or in the
rotation of positions may show in some of them only.
"""

HELD = (
    (
        "Why does the moon show the same face all the time?",
        "The moon turns around its own axis in the same time in which it travels around the earth. Long ago it turned "
        "faster, but the earth's gravity raised tides in its rock, and the friction slowed it down until one side "
        "stayed in front. From the earth we see 59 percent of its surface, because it sways a little.",
    ),
    (
        "Write a function that returns the prime numbers below n.",
        "```python\ndef primes(n):\n    sieve = [True] * n\n    sieve[:2] = [False] * min(n, 2)\n"
        "    for i in range(2, int(n ** 0.5) + 1):\n        if sieve[i]:\n"
        "            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])\n"
        "    return [i for i, is_prime in enumerate(sieve) if is_prime]\n```\nIt takes O(n log log n) steps.",
    ),
    (
        "Wie backt man ein einfaches Brot?",
        "Mische 500 g Mehl, 350 ml lauwarmes Wasser, 10 g Salz und 7 g Trockenhefe. Knete den Teig zehn Minuten und "
        "lass ihn zugedeckt eine Stunde gehen. Forme ihn, warte noch einmal dreißig Minuten und backe das Brot bei "
        "220 °C etwa vierzig Minuten, bis es hohl klingt.",
    ),
    (
        "¿Qué es un eclipse de sol?",
        "Un eclipse de sol ocurre cuando la luna pasa entre la tierra y el sol y su sombra cae sobre una parte de la "
        "tierra. En esa franja, que mide unos 150 kilómetros, el día se vuelve noche durante pocos minutos.",
    ),
    (
        "Quelle est la différence entre le climat et la météo ?",
        "La météo décrit l'état de l'atmosphère à un moment donné : il pleut, il fait 12 degrés. Le climat résume ce "
        "temps sur au moins trente ans. Une journée froide ne dit donc rien du climat.",
    ),
    (
        "水为什么会结冰？",
        "水的温度降到零度以下时,水分子的运动变慢,它们排列成六角形的晶体,这就是冰。冰比水轻,所以浮在水面上。",
    ),
    (
        "Почему небо голубое?",
        "Солнечный свет рассеивается на молекулах воздуха. Короткие волны рассеиваются сильнее длинных, поэтому к нам "
        "со всех сторон приходит голубой свет.",
    ),
    (
        "How much is 17 * 23, step by step?",
        "17 * 23 = 17 * 20 + 17 * 3.\n17 * 20 = 340.\n17 * 3 = 51.\n340 + 51 = 391.\n\nSo 17 * 23 = **391**.",
    ),
    (
        "List three uses of a hash table.",
        "1. Counting how often each word of a text occurs.\n2. Finding a record by its key in constant time.\n"
        "3. Remembering what was computed before, so that it isn't computed twice.",
    ),
    (
        "Tell me about a lighthouse in three sentences.",
        "The lighthouse of Ar-Men stands on a rock that the sea covers at high tide. It took fourteen years to build, "
        "from 1867 to 1881, because the workers could land there for only a few hours each year. Its keepers called "
        'it "the hell of hells".',
    ),
)
