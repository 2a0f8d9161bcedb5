"""How languages are called in English and in Chinese, with their ISO 639-1 codes.

Languages that lingua is not asked about are named too: such an output is not held against the task's own.
"""

from __future__ import annotations


def _pairs(text: str) -> dict[str, str]:
    """Read "name:code name:code"."""
    return {name: code for name, _, code in (pair.partition(":") for pair in text.split())}


ENGLISH_NAMES = _pairs(
    "English:en Mandarin:zh Chinese:zh Cantonese:zh French:fr German:de Spanish:es Italian:it "
    "Portuguese:pt Dutch:nl Russian:ru Japanese:ja Korean:ko Arabic:ar Polish:pl Turkish:tr "
    "Vietnamese:vi Swedish:sv Latin:la Greek:el Hindi:hi Hebrew:he Thai:th Danish:da "
    "Norwegian:no Finnish:fi Czech:cs Hungarian:hu Romanian:ro Ukrainian:uk Indonesian:id"
)
CHINESE_NAMES = _pairs(
    "英文:en 英语:en 中文:zh 汉语:zh 普通话:zh 白话文:zh 白话:zh 现代文:zh "
    "文言文:zh 文言:zh 粤语:zh 法文:fr 法语:fr 德文:de "
    "德语:de 西班牙文:es 西班牙语:es 意大利文:it 意大利语:it 葡萄牙语:pt 荷兰语:nl "
    "俄文:ru 俄语:ru 日文:ja 日语:ja 韩文:ko 韩语:ko "
    "阿拉伯语:ar 波兰语:pl 土耳其语:tr 越南语:vi 瑞典语:sv 拉丁语:la 希腊语:el 泰语:th 印地语:hi"
)
ABBREVIATED = _pairs("英:en 中:zh 汉:zh 法:fr 德:de 日:ja 韩:ko 俄:ru")
